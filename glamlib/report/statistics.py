"""What runs show: means over seeds, differences between two variants by tests of scipy, and verdicts by rule."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

LEVEL, POWER = 0.05, 0.8
SUPPORTED, CONTRADICTED, EQUIVALENT, INCONCLUSIVE = "supported", "contradicted", "equivalent", "inconclusive"
# Of scores with a chance of 0.5 (as `escaped` in glamlib.evaluation.cues): runs up to here guess, from here they do not
_GUESSES, _KNOWS = 0.6, 0.75


class Interval(NamedTuple):
    """A mean over ``n`` seeds and its 95 % interval (Student's t); low and high are NaN for fewer than two seeds."""

    n: int
    mean: float
    low: float
    high: float


def mean_interval(values: Iterable[float]) -> Interval:
    """Return the mean of ``values`` with its t interval: right for few seeds, where a bootstrap is too narrow."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean()) if data.size else np.nan
    half = float(stats.t.ppf(0.975, data.size - 1) * stats.sem(data)) if data.size > 1 else np.nan
    return Interval(data.size, mean, mean - half, mean + half)


def score_interval(values: Iterable[float]) -> Interval:
    """Return `mean_interval` of scores within 0..1; without an interval where they are `bimodal`."""
    found = mean_interval(values)
    if np.any((np.asarray(values) < 0) | (np.asarray(values) > 1)):
        raise ValueError("score_interval: values must be scores within 0..1; of others take mean_interval")
    if bimodal(values):
        return found._replace(low=np.nan, high=np.nan)
    return found._replace(low=float(np.clip(found.low, 0, 1)), high=float(np.clip(found.high, 0, 1)))


def bimodal(scores: Iterable[float]) -> bool:
    """Tell whether scores in 0..1 fall into two groups, each at most half as wide as the gap between them: of runs that
    guess (at most 0.6) and of runs that no longer guess (at least 0.75).
    """
    data = np.sort(np.asarray(scores, dtype=np.float64))
    if len(data) < 2:
        return False
    low, high = np.split(data, [np.diff(data).argmax() + 1])
    apart = max(np.ptp(low), np.ptp(high)) <= (high[0] - low[-1]) / 2
    return bool(low[-1] <= _GUESSES and high[0] >= _KNOWS and apart)


class Comparison(NamedTuple):
    """The difference of two variants.

    Attributes:
        n: seeds that count: pairs, or the runs of the smaller group.
        difference, low, high: first minus second, with the 95 % interval; NaN where there is none.
        p: of no difference, two-sided; for the direction "equal", of a difference within the margin.
        p_equivalent: of a difference of the margin or more (two one-sided tests); NaN without a margin.
        detectable: the smallest true difference (of counts: from no success) that so many seeds show in 80 % of trials.
        direction: "higher", "lower" or "equal": what is claimed of the first.
        counts: of bimodal runs, the successes: "3 of 5 against 5 of 5".
    """

    n: int
    difference: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    p_equivalent: float = np.nan
    detectable: float = np.nan
    direction: str = "higher"
    counts: str = ""

    @property
    def verdict(self) -> str:
        """Supported, contradicted, equivalent (smaller than what matters, whatever was claimed) or inconclusive."""
        if self.p_equivalent <= LEVEL:
            return EQUIVALENT
        if not self.p <= LEVEL:  # NaN, too
            return INCONCLUSIVE
        claimed = {"higher": self.difference > 0, "lower": self.difference < 0, "equal": False}
        return SUPPORTED if claimed[self.direction] else CONTRADICTED


def compare(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    margin: float = 0.0,
    direction: str = "higher",
    paired: bool = True,
    success: bool = False,
    counted: bool = False,
    cap: float = np.inf,
    grid: float = 0.0,
    level: float = LEVEL,
) -> Comparison:
    """Compare two variants by the values of their runs, which come by seed.

    The tests are Student's, ``paired`` by the seeds of both, or Welch's. Of `bimodal` scores, if ``counted``, runs that
    no longer guess are counted and tested by Fisher's exact test, with Newcombe's interval of two Wilson intervals
    (Statistics in Medicine 17, 1998). Steps that the ``cap`` cuts off have Welch's interval and a permutation test.

    Args:
        margin: the smallest difference that matters; 0 for any.
        success: values are 1 (success) or 0.
        counted: values are shares of right answers to one question of two, with a chance of 0.5.
        grid: values are multiples of it, rounded up: they vary at least as rounding does.
        level: of one claim, for ``detectable``: the level of a family over the number of its claims (see `holm`).
    """
    scores = pd.DataFrame({"first": pd.Series(first), "second": pd.Series(second)}, dtype=np.float64)
    scores = scores.dropna() if paired else scores
    groups = scores["first"].dropna(), scores["second"].dropna()
    n = min(map(len, groups))
    if n == 0:
        return Comparison(0, np.nan, direction=direction)
    one, two = (group.to_numpy() for group in groups)
    found = Comparison(n, float(one.mean() - two.mean()), direction=direction)
    if success or (counted and (bimodal(one) or bimodal(two))):
        return _counted(found, one, two, margin if direction == "equal" else 0.0, level)
    if n < 2:
        return found
    samples = [one - two] if paired else [one, two]
    rounding = (grid**2 / 12) * (1 + paired) + 1e-24  # never 0
    variances = np.array([max(sample.var(ddof=1), rounding) / len(sample) for sample in samples])  # of means
    error = np.sqrt(variances.sum())
    freedom = variances.sum() ** 2 / sum(variances**2 / [len(sample) - 1 for sample in samples])  # Satterthwaite's
    student, distance = stats.t(freedom), abs(found.difference)
    half = student.ppf(0.975) * error
    found = found._replace(
        low=float(found.difference - half),
        high=float(found.difference + half),
        p=float(min(1, 2 * student.sf((distance - margin * (direction == "equal")) / error))),
        p_equivalent=float(student.sf((margin - distance) / error)) if margin else np.nan,
        detectable=float(error * detectable_errors(freedom, level) + margin * (direction == "equal")),
    )
    return _permuted(found, one, two, margin) if max(one.max(), two.max()) >= cap else found


@cache
def detectable_errors(freedom: float, level: float = LEVEL) -> float:
    """Return how many standard errors a true difference has that a two-sided t-test shows with probability 0.8."""
    critical = stats.t.ppf(1 - level / 2, freedom)
    return optimize.brentq(lambda true: stats.nct.sf(critical, freedom, true) - POWER, 0, 10 * critical)


def _permuted(found: Comparison, one: np.ndarray, two: np.ndarray, margin: float) -> Comparison:
    """Return ``found`` with its tests, of no difference and of one within the margin, by permuting shifted values."""

    def p(shift: float, alternative: str) -> float:
        options = {"statistic": lambda a, b, axis: a.mean(axis) - b.mean(axis), "vectorized": True, "batch": 1000}
        return float(stats.permutation_test((one - shift, two), **options, alternative=alternative, rng=0).pvalue)

    side = margin if found.difference > 0 else -margin
    beyond, within = ("greater", "less") if found.difference > 0 else ("less", "greater")
    unequal = min(1.0, 2 * p(side, beyond)) if found.direction == "equal" else p(0.0, "two-sided")
    return found._replace(p=unequal, p_equivalent=p(side, within) if margin else np.nan)


def _counted(found: Comparison, one: np.ndarray, two: np.ndarray, margin: float, alpha: float) -> Comparison:
    (hits, n), (others, m) = ((int((group >= _KNOWS).sum()), len(group)) for group in (one, two))
    wilson = (stats.binomtest(k, size).proportion_ci(method="wilson") for k, size in ((hits, n), (others, m)))
    (low, high), (lower, higher) = wilson
    rate, other = hits / n, others / m
    least = rate - other - float(np.hypot(rate - low, higher - other))
    most = rate - other + float(np.hypot(high - rate, other - lower))
    p = stats.fisher_exact([[hits, n - hits], [others, m - others]]).pvalue
    # what an exact test shows against no success, in 80 % of all samples
    needed = next((k for k in range(1, n + 1) if stats.fisher_exact([[k, n - k], [0, m]]).pvalue <= alpha), None)
    return found._replace(
        difference=rate - other,
        low=least,
        high=most,
        p=float(p) if not margin or max(least, -most) > margin else 1.0,  # Fisher's test knows no margin
        detectable=float(stats.beta.ppf(POWER, needed, n - needed + 1)) if needed else np.inf,
        counts=f"{hits} of {n} against {others} of {m}",
    )


def holm(p: Iterable[float], size: int | None = None) -> np.ndarray:
    """Return p-values of one family adjusted by Holm's step-down rule; those that are NaN count if ``size`` says so."""
    values = np.asarray(list(p), dtype=np.float64)
    order = values.argsort()[: np.isfinite(values).sum()]  # NaN is last
    adjusted = np.full_like(values, np.nan)
    adjusted[order] = np.maximum.accumulate(values[order] * ((size or len(order)) - np.arange(len(order)))).clip(max=1)
    return adjusted

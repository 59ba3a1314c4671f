"""Intervals and tests against numbers worked out by hand or printed, and verdicts against what was planted."""

from itertools import combinations, product
from math import comb, inf, isnan, nan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glamlib.report import statistics
from glamlib.report.statistics import Comparison, bimodal, compare, holm, mean_interval, score_interval
from glamlib.report.tables import summary_table
from glamlib.studies import find_study

# Two-sided 95 % points of Student's t, as printed: degrees of freedom to value
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262}


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [
        ([1.0, 3.0], 2.0, sqrt(2)),
        ([2.0, 4.0, 4.0, 6.0], 4.0, sqrt(8 / 3)),
        ([float(i) for i in range(10)], 4.5, sqrt(82.5 / 9)),
        ([0.5, 0.5, 0.5], 0.5, 0.0),
    ],
)
def test_interval_by_hand(values, mean, deviation):
    n = len(values)
    half = T95[n - 1] * deviation / sqrt(n)
    found = mean_interval(values)
    assert (found.n, found.mean) == (n, mean)
    assert found.low == pytest.approx(mean - half, rel=1e-3, abs=1e-3)
    assert found.high == pytest.approx(mean + half, rel=1e-3, abs=1e-3)


def test_a_single_value_has_no_interval_and_scores_stay_between_0_and_1():
    one, none = mean_interval([0.7]), mean_interval([])
    assert (one[:2], none.n) == ((1, 0.7), 0)
    assert all(isnan(value) for value in (*one[2:], *none[1:], score_interval([0.5]).high))
    assert score_interval([0.0, 0.1, 0.05]).low == 0.0
    assert score_interval([0.9, 0.95, 1.0]).high == 1.0
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        score_interval([100.0, 150.0, 125.0])  # steps, which would be cut to 1


def test_bimodal_scores_have_no_student_interval():
    """Three runs at the plateau of guessing, three that left it: counts stand in the place of an interval."""
    some, all_left = [0.5, 0.51, 1.0, 0.99, 0.5, 1.0], [0.98, 0.99, 1.0, 1.0, 0.99, 1.0]
    assert bimodal(some)
    assert not bimodal(all_left)
    assert not bimodal([0.5])
    assert isnan(score_interval(some).low)
    found = compare(dict(enumerate(all_left)), dict(enumerate(some)), counted=True)
    assert found.counts == "6 of 6 against 3 of 6"
    assert found.p == pytest.approx(2 * 20 / 220)  # choose 3 failures: all of the second group, C(6, 3) of C(12, 3)
    assert found.difference == 0.5
    row = gains(glam=dict(enumerate(some)), swin=dict(enumerate(all_left))).loc["glam"]
    assert row["gain"] == pytest.approx((4.5 - 5.96) / 6)
    assert isnan(row["gain_low"])


def gains(**scores: dict[int, float]) -> pd.DataFrame:
    rows = [(name, seed, value, name, 1.0, "cpu") for name, values in scores.items() for seed, value in values.items()]
    table = pd.DataFrame(rows, columns=["variant", "seed", "miou", "label", "train_seconds", "profile"])
    return summary_table(table, find_study("camvid")).set_index("variant")[["gain", "gain_low", "gain_high"]]


def test_differences_are_paired_by_seed():
    """Seeds differ much more than the pair does; only the seeds of both count, in whatever order they come."""
    glam, swin = {2: 0.62, 0: 0.51, 1: 0.57, 7: 0.9}, {0: 0.5, 1: 0.54, 2: 0.6, 8: 0.1}
    half = T95[2] * 0.01 / sqrt(3)  # differences 0.01, 0.03, 0.02: mean 0.02, deviation 0.01
    by_hand = pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-4)
    table = gains(glam=glam, swin=swin, vit={5: 1.0})
    assert tuple(table.loc["glam"]) == by_hand
    assert isnan(table.loc["vit", "gain"])
    assert tuple(compare(glam, swin)[1:4]) == by_hand
    assert compare(glam, swin).n == 3
    assert compare({0: 1.0}, {1: 1.0}).n == 0


def test_welch_by_hand():
    one, two = [0.62, 0.58, 0.60], [0.50, 0.56, 0.52, 0.54]
    error = sqrt(0.0004 / 3 + (0.002 / 3) / 4)  # variances 0.0004 and 0.002 / 3
    found = compare(dict(enumerate(one)), dict(enumerate(two)), paired=False)
    freedom = error**4 / ((0.0004 / 3) ** 2 / 2 + (0.002 / 12) ** 2 / 3)
    assert (found.n, found.difference) == (3, pytest.approx(0.07))
    assert found.high == pytest.approx(0.07 + stats.t.ppf(0.975, freedom) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(0.07 / error, freedom))
    assert found.p == pytest.approx(stats.ttest_ind(one, two, equal_var=False).pvalue)
    assert found.detectable == pytest.approx(statistics.detectable_errors(freedom) * error)
    equal = compare(dict(enumerate(one)), dict(enumerate(two)), paired=False, direction="equal", margin=0.05)
    assert equal.detectable == pytest.approx(found.detectable + 0.05)  # what shows that it is beyond the margin
    assert statistics.detectable_errors(9) / sqrt(10) == pytest.approx(
        1.0, abs=0.01
    )  # of ten pairs, 80 % power (Cohen, 1988)


def test_equivalent_is_a_90_percent_interval_within_the_margin():
    rng = np.random.default_rng(0)
    for shift, margin in product(np.linspace(-0.2, 0.2, 21), (0.02, 0.05, 0.2)):
        one, two = rng.normal(0.7 + shift, 0.02, 4), rng.normal(0.7, 0.02, 4)
        low, high = stats.ttest_rel(one, two).confidence_interval(0.9)
        found = compare(dict(enumerate(one)), dict(enumerate(two)), margin=margin)
        assert (found.verdict == "equivalent") == (-margin < low and high < margin)


@pytest.mark.parametrize(
    ("values", "direction", "verdict"),
    [
        ((0.20, 0.22, 0.21), "higher", "supported"),
        ((-0.20, -0.22, -0.21), "higher", "contradicted"),
        ((-0.20, -0.22, -0.21), "lower", "supported"),
        ((0.060, 0.062, 0.061), "equal", "contradicted"),
        ((0.045, 0.065, 0.055), "equal", "inconclusive"),  # not equal, but perhaps within the margin of 0.05
        ((0.010, 0.012, 0.011), "higher", "equivalent"),  # surely better, by less than matters
        ((0.010, 0.012, 0.011), "equal", "equivalent"),
        ((0.1, -0.1, 0.0), "higher", "inconclusive"),
        ((0.2,), "higher", "inconclusive"),
        ((0.2, 0.2, 0.2), "higher", "supported"),  # no spread
        ((0.0, 0.0, 0.0), "higher", "equivalent"),
    ],
)
def test_a_verdict_follows_by_rule(values, direction, verdict):
    second = dict.fromkeys(range(len(values)), 0.5)
    first = {seed: 0.5 + value for seed, value in enumerate(values)}
    assert compare(first, second, margin=0.05, direction=direction).verdict == verdict


def test_success_counts_as_printed():
    """Newcombe (1998), table II, method 10: 56 of 70 against 48 of 80, 0.0524 to 0.3339."""
    first = {seed: float(seed < 56) for seed in range(70)}
    second = {seed: float(seed < 48) for seed in range(80)}
    found = compare(first, second, paired=False, success=True)
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert compare({0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.0}, success=True).detectable == inf  # two runs show nothing
    assert compare({0: 1, 1: 1, 2: 1, 3: 1}, {0: 0, 1: 0, 2: 0, 3: 0}, success=True).verdict == "supported"  # p = 1/35
    # 5 of 10 against 0 of 10 have p = 0.033, 4 of 10 have 0.087: at least 5 are needed, in 80 % of samples
    detectable = compare(by_seed([1] * 10), by_seed([0] * 10), success=True).detectable
    assert sum(comb(10, k) * detectable**k * (1 - detectable) ** (10 - k) for k in range(5, 11)) == pytest.approx(0.8)
    # of "equal", a difference that may be within the margin contradicts nothing, though it is no chance
    ten, four = by_seed([1] * 10), by_seed([1] * 5 + [0] * 5)
    assert compare(ten, four, success=True).verdict == "supported"
    assert compare(ten, four, success=True, margin=0.3, direction="equal").verdict == "inconclusive"


def test_times_that_reach_the_cap_are_permuted():
    """Every way to part the ten times is counted; three against three show nothing, however far apart."""
    one, two = [3.0, 5.0, 4.0, 6.0, 3.0], [9.0, 9.0, 5.0, 8.0, 9.0]
    found = compare(by_seed(one), by_seed(two), cap=9, direction="lower", margin=1.0, paired=False)

    def share(shift: float, extreme) -> float:
        pooled, size = np.array([*(value - shift for value in one), *two]), len(one)
        parts = [np.isin(range(10), chosen) for chosen in combinations(range(10), size)]
        means = np.array([pooled[part].mean() - pooled[~part].mean() for part in parts])
        return np.mean([extreme(mean, np.mean(one) - shift - np.mean(two)) for mean in means])

    least = share(0.0, lambda mean, seen: mean <= seen + 1e-9)
    assert found.p == pytest.approx(2 * least)
    assert found.p_equivalent == pytest.approx(share(-1.0, lambda mean, seen: mean >= seen - 1e-9))
    assert (found.difference, found.verdict) == (pytest.approx(-3.8), "supported")
    assert found.low == pytest.approx(stats.ttest_ind(one, two, equal_var=False).confidence_interval().low)
    assert (
        compare(by_seed([1, 2, 3]), by_seed([9, 9, 9]), cap=9, direction="lower").verdict == "inconclusive"
    )  # p = 0.1


def test_one_straggler_does_not_contradict_equal_times():
    """A true difference of 20 where 50 matters, and one run of forty that reaches the cap."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(20):
        one, two = rng.normal(120, 15, 20), rng.normal(100, 15, 20)
        one[0] = 600
        verdicts.append(compare(by_seed(one), by_seed(two), cap=600, margin=50, direction="equal").verdict)
    assert "contradicted" not in verdicts
    far = compare(by_seed(rng.normal(300, 15, 20)), by_seed([*rng.normal(100, 15, 19), 600.0]), cap=600, margin=50,
                  direction="equal")  # fmt: skip
    assert far.verdict == "contradicted"


def test_an_outlier_is_no_group_of_its_own():
    """None of these runs guesses as those of the plateau do: the means are compared, not counts."""
    tokens, wide = [0.695, 0.746, 0.731, 0.955, 0.720], [0.62, 0.64, 0.50, 0.59, 0.55]
    assert not bimodal(tokens)
    found = compare(by_seed(tokens), by_seed(wide), paired=False, counted=True)
    assert (found.counts, found.verdict) == ("", "supported")
    dice = compare(by_seed([0.80, 0.82, 0.81]), by_seed([0.58, 0.80, 0.81]))  # no question of two: not counted
    assert (dice.counts, dice.difference) == ("", pytest.approx(0.08))
    assert found.p == pytest.approx(stats.ttest_ind(tokens, wide, equal_var=False).pvalue)


def test_values_on_a_grid_vary_at_least_as_rounding_does():
    """Three runs each, validated every 25 steps and found in the same one: they may differ by nearly 25."""
    found = compare(by_seed([75.0] * 3), by_seed([75.0] * 3), margin=50, direction="equal", paired=False, grid=25)
    error = sqrt(2 * 25**2 / 12 / 3)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 4) * error)
    assert found.p_equivalent == pytest.approx(stats.t.sf(50 / error, 4))


def test_holm_by_hand():
    assert holm([0.01, 0.04, nan, 0.03]) == pytest.approx([0.03, 0.06, nan, 0.06], nan_ok=True)
    assert holm([0.01, 0.04, nan, 0.03], size=4) == pytest.approx([0.04, 0.09, nan, 0.09], nan_ok=True)


def families(difference: float, count: int, seeds: int = 5, claims: int = 4) -> list[list[Comparison]]:
    """Families of comparisons whose true difference is planted; p-values are adjusted by Holm."""
    rng, found = np.random.default_rng(1), []
    for _ in range(count):
        data = [(rng.normal(0.7 + difference, 0.02, seeds), rng.normal(0.7, 0.02, seeds)) for _ in range(claims)]
        family = [compare(dict(enumerate(a)), dict(enumerate(b)), margin=0.02, level=0.05 / claims) for a, b in data]
        p, equal = holm(one.p for one in family), holm(one.p_equivalent for one in family)
        found.append([one._replace(p=p[i], p_equivalent=equal[i]) for i, one in enumerate(family)])
    return found


def share(found: list[list[Comparison]], *verdicts: str) -> float:
    return np.mean([any(one.verdict in verdicts for one in family) for family in found])


def test_at_most_5_percent_of_families_err():
    """A false difference where there is none, a false equivalence where the difference is the margin."""
    tolerance = 3 * sqrt(0.05 * 0.95 / 300)
    assert share(families(0.0, 300), "supported", "contradicted") <= 0.05 + tolerance
    assert share(families(0.02, 300), "equivalent") <= 0.05 + tolerance


def test_stated_power_is_met():
    """Four claims of ten seeds: 80 % of them show the difference that is called detectable at the true deviation, and
    what runs say of it agrees."""
    detectable = statistics.detectable_errors(9, 0.05 / 4) * 0.02 * sqrt(2 / 10)
    found = [one for family in families(detectable, 100, seeds=10) for one in family]
    assert np.mean([one.verdict == "supported" for one in found]) >= 0.8 - 3 * sqrt(0.16 / 400)
    assert np.median([one.detectable for one in found]) == pytest.approx(detectable, rel=0.1)

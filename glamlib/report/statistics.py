"""Means over seeds, differences paired by seed, and their 95 % intervals."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


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
    """Return `mean_interval` of scores cut to 0..1, where Student's interval does not know that they lie."""
    found = mean_interval(values)
    return found._replace(low=float(np.clip(found.low, 0, 1)), high=float(np.clip(found.high, 0, 1)))


def paired_difference(runs: pd.DataFrame, variant: str, other: str, metric: str) -> Interval:
    """Return the mean of ``variant - other`` over the seeds that both have run; ``n`` is 0 where there are none.

    Args:
        runs: one row a run, with the columns variant, seed and ``metric``.
    """
    scores = runs.pivot(index="seed", columns="variant", values=metric).reindex(columns=[variant, other])
    return mean_interval((scores[variant] - scores[other]).dropna())

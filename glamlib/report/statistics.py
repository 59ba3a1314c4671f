"""Means and intervals over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval (Student's t over n seeds); low and high are NaN for a single value."""

    n: int
    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of ``values`` with its t interval: right for few seeds, where a bootstrap is too narrow."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return Interval(int(data.size), float(data.mean()) if data.size else float("nan"), float("nan"), float("nan"))
    error = stats.sem(data)
    half = float(stats.t.ppf((1 + confidence) / 2, data.size - 1) * error)
    mean = float(data.mean())
    return Interval(int(data.size), mean, mean - half, mean + half)


def paired_difference(values: dict[int, float], baseline: dict[int, float]) -> Interval:
    """Return the mean of ``values - baseline`` over the seeds that both have: seed by seed the data are the same."""
    seeds = sorted(values.keys() & baseline.keys())
    return mean_interval([values[seed] - baseline[seed] for seed in seeds])

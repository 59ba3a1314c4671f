"""Intervals against numbers worked out by hand, with Student's t from a printed table."""

from math import isnan, sqrt

import pandas as pd
import pytest

from glamlib.report.statistics import Interval, mean_interval, paired_difference, score_interval

# Two-sided 95 % points of Student's t, as printed: degrees of freedom to value
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [
        ([1.0, 3.0], 2.0, sqrt(2)),
        ([1.0, 2.0, 3.0], 2.0, 1.0),
        ([2.0, 4.0, 4.0, 6.0], 4.0, sqrt(8 / 3)),
        ([0.0, 0.0, 0.0, 0.0, 5.0], 1.0, sqrt(20 / 4)),
        ([float(i) for i in range(10)], 4.5, sqrt(82.5 / 9)),
        ([0.5, 0.5, 0.5], 0.5, 0.0),
    ],
)
def test_interval_by_hand(values: list[float], mean: float, deviation: float) -> None:
    n = len(values)
    half = T95[n - 1] * deviation / sqrt(n)
    found = mean_interval(values)
    assert (found.n, found.mean) == (n, mean)
    assert found.low == pytest.approx(mean - half, rel=1e-3, abs=1e-3)
    assert found.high == pytest.approx(mean + half, rel=1e-3, abs=1e-3)


def test_a_single_value_has_no_interval_and_none_has_no_mean() -> None:
    one, none = mean_interval([0.7]), mean_interval([])
    assert one[:2] == (1, 0.7)
    assert none.n == 0
    assert all(isnan(value) for value in (*one[2:], *none[1:]))


def test_scores_stay_between_0_and_1() -> None:
    assert score_interval([0.0, 1.0, 0.5]) == Interval(3, 0.5, 0.0, 1.0)
    assert isnan(score_interval([0.5]).high)


def runs(**scores: dict[int, float]) -> pd.DataFrame:
    rows = [(name, seed, value) for name, values in scores.items() for seed, value in values.items()]
    return pd.DataFrame(rows, columns=["variant", "seed", "miou"])


def test_paired_difference_goes_seed_by_seed() -> None:
    """Seeds differ much more than the pair does; only the seeds of both count, in whatever order they come."""
    table = runs(glam={2: 30.2, 0: 10.1, 1: 20.3, 7: 99.0}, swin={0: 10.0, 1: 20.0, 2: 30.0, 8: -99.0}, vit={5: 1.0})
    found = paired_difference(table, "glam", "swin", "miou")
    half = T95[2] * 0.1 / sqrt(3)  # differences 0.1, 0.3, 0.2: mean 0.2, deviation 0.1
    assert found == pytest.approx((3, 0.2, 0.2 - half, 0.2 + half), abs=1e-3)
    assert paired_difference(table, "swin", "glam", "miou").mean == pytest.approx(-0.2)
    assert paired_difference(table, "vit", "swin", "miou").n == 0
    assert paired_difference(table, "cvt", "swin", "miou").n == 0

"""Surfaces and Hausdorff distances, against MONAI's, scipy's erosion and sums by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from glamlib.evaluation import surface_distance
from glamlib.evaluation.surface_distance import hausdorff_distance, surface


def blob(seed: int, size: tuple[int, ...], share: float = 0.3) -> Tensor:
    """Return a smooth random mask of about ``share`` of the voxels, some at the border."""
    smooth = ndimage.uniform_filter(np.random.default_rng(seed).standard_normal(size), 3)
    return torch.from_numpy(smooth > np.quantile(smooth, 1 - share))


def monais(guess: Tensor, truth: Tensor, spacing: tuple[float, ...], percentile: float = 95) -> float:
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's of its own deprecated arguments, and of empty masks
        found = compute_hausdorff_distance(
            guess[None, None], truth[None, None], include_background=True, percentile=percentile, spacing=list(spacing)
        )
    return float(found)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 1.25), (0.7, 2.0, 5.0)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_are_monais(spacing: tuple[float, ...], seed: int) -> None:
    size = ((9, 8, 10), (20, 31, 17), (1, 12, 12), (40, 6, 25))[seed]
    guess, truth = blob(seed, size), blob(seed + 10, size, share=(0.3, 0.02, 0.2, 0.6)[seed])
    for percentile in (95, 50, 100):
        found = hausdorff_distance(guess, truth, spacing, percentile)
        assert found == pytest.approx(monais(guess, truth, spacing, percentile), abs=1e-4)
    assert found > 0
    assert found == hausdorff_distance(truth, guess, spacing, 100)


def test_two_dimensions() -> None:
    guess, truth = blob(0, (30, 25)), blob(1, (30, 25))
    assert hausdorff_distance(guess, truth, (2.0, 0.5)) == pytest.approx(monais(guess, truth, (2.0, 0.5)), abs=1e-4)


@pytest.mark.parametrize("place", [(0, 0, 0), (4, 5, 6), (9, 9, 9)])
def test_masks_of_one_voxel(place: tuple[int, int, int]) -> None:
    one, other = torch.zeros(2, 10, 10, 10, dtype=torch.bool)
    one[place] = other[2, 7, 4] = True
    by_hand = math.dist([3.0 * place[0], 0.5 * place[1], 1.0 * place[2]], [6.0, 3.5, 4.0])
    assert hausdorff_distance(one, other, (3.0, 0.5, 1.0)) == pytest.approx(by_hand, abs=1e-5)
    assert hausdorff_distance(one, one, (3.0, 0.5, 1.0)) == 0
    ball = blob(3, (10, 10, 10))
    assert hausdorff_distance(one, ball, (3.0, 0.5, 1.0)) == pytest.approx(monais(one, ball, (3.0, 0.5, 1.0)), abs=1e-4)


def test_far_apart_and_without_overlap() -> None:
    one, other = torch.zeros(2, 60, 50, 40, dtype=torch.bool)
    one[2:8, 3:9, 1:5], other[50:58, 40:49, 30:40] = True, True
    spacing = (1.5, 1.0, 2.5)
    assert hausdorff_distance(one, other, spacing) == pytest.approx(monais(one, other, spacing), abs=1e-4)


def test_an_empty_mask_has_no_distance() -> None:
    none, some = torch.zeros(5, 6, 7, dtype=torch.bool), blob(0, (5, 6, 7))
    for guess, truth in ((none, some), (some, none), (none, none)):
        assert math.isnan(hausdorff_distance(guess, truth, (1.0, 1.0, 1.0)))


def test_a_surface_is_the_mask_without_its_erosion() -> None:
    """scipy's erosion by the six face neighbours, outside of the volume counting as outside of the mask."""
    for mask in (blob(0, (12, 9, 14), 0.6), torch.ones(4, 5, 6, dtype=torch.bool), blob(1, (1, 7, 7))):
        expected = mask.numpy() & ~ndimage.binary_erosion(mask.numpy())
        assert np.array_equal(surface(mask).numpy(), expected)


def test_parts_of_the_last_axis_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    guess, truth = blob(0, (15, 12, 20)), blob(1, (15, 12, 20))
    whole = hausdorff_distance(guess, truth, (1.0, 2.0, 3.0))
    monkeypatch.setattr(surface_distance, "_AT_ONCE", 50)
    assert hausdorff_distance(guess, truth, (1.0, 2.0, 3.0)) == whole

"""Gaussian-weighted sliding windows, against MONAI's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamlib.evaluation.sliding_window import gaussian_weights, patch_starts, slide_gaussian


class Positional(nn.Module):
    """A stand-in for a network: three logits, which depend on where in its patch a voxel lies."""

    def __init__(self, patch_size: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = torch.randn(3, *patch_size, generator=torch.Generator().manual_seed(1))
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        assert x.shape[2:] == self.bias.shape[1:]
        return x.mean(dim=1, keepdim=True) * self.bias + self.bias.flip(-1)


CASES = {  # size, patch
    "one patch": ((8, 8, 8), (8, 8, 8)),
    "many patches": ((17, 20, 31), (8, 10, 7)),
    "smaller along two axes": ((5, 30, 7), (16, 12, 10)),
    "smaller along all": ((3, 4, 5), (8, 9, 10)),
    "a patch of one voxel": ((3, 4, 2), (1, 2, 1)),
    "two dimensions": ((25, 14), (8, 16)),
    "one dimension": ((25,), (6,)),
}


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_monais(case: str, batch_size: int) -> None:
    from monai.inferers import sliding_window_inference

    size, patch = CASES[case]
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    predict = Positional(patch)
    theirs = sliding_window_inference(
        x, patch, batch_size, predict, overlap=0.5, mode="gaussian", sigma_scale=0.125, cval=-1.5
    )
    ours = slide_gaussian(predict, x, patch, batch_size, outside=-1.5)
    assert ours.shape == (2, 3, *size)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_weights_are_monais() -> None:
    from monai.data.utils import compute_importance_map

    for patch in ((8, 9, 3), (40, 56, 40), (5,), (1, 1)):
        theirs = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125)
        torch.testing.assert_close(gaussian_weights(patch), theirs, rtol=0, atol=1e-7)


def test_patches_overlap_by_half_and_end_at_the_end() -> None:
    assert patch_starts(20, 8) == [0, 4, 8, 12]
    assert patch_starts(21, 8) == [0, 4, 8, 12, 13]
    assert patch_starts(21, 7) == [0, 3, 6, 9, 12, 14]
    assert patch_starts(5, 8) == [0]
    predict = Positional((8,))
    slide_gaussian(predict, torch.zeros(1, 1, 21), (8,), batch_size=2)
    assert predict.calls == [2, 2, 1]


def test_low_precision_is_summed_in_float32() -> None:
    """Under autocast a network gives bfloat16; sums of it over a hundred patches would lose the small weights."""
    x = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    low = slide_gaussian(lambda part: part.bfloat16(), x, (8, 8))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, x.bfloat16().float(), rtol=1e-5, atol=1e-5)


def test_a_prediction_that_is_the_same_everywhere_comes_back() -> None:
    x = torch.randn(1, 4, 9, 30, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slide_gaussian(F.relu, x, (16, 12, 4)), x.relu(), rtol=1e-5, atol=1e-5)

"""Sliding-window inference over maps of any number of dimensions, patches weighted by a Gaussian.

Numerically MONAI's ``sliding_window_inference(mode="gaussian", overlap=0.5)`` (tested). MONAI is not used because runs
must also work on a GPU machine that has little more than torch.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 0.125  # deviation of the Gaussian as a share of the patch's side: MONAI's and nnU-Net's
FLOOR = 1e-3  # MONAI's smallest weight: the corners of a patch count for little, but for something


def gaussian_weights(patch_size: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Return the weight, float32 ``(*patch_size)``, of a patch's elements: a Gaussian around its centre."""
    weights = torch.ones((), device=device)
    for side in patch_size:
        place = torch.arange(side, dtype=torch.float32, device=device) - (side - 1) / 2
        weights = weights[..., None] * torch.exp(-(place**2) / (2 * (SIGMA * side) ** 2))
    return weights.clamp(min=max(weights.min().item(), FLOOR))


def patch_starts(length: int, side: int) -> list[int]:
    """Return where patches of ``side`` start along ``length`` elements: every half side, the last one at the end."""
    last = max(length - side, 0)
    return [*range(0, last, max(side // 2, 1)), last]


def slide_gaussian(
    predict: Callable[[Tensor], Tensor], x: Tensor, patch_size: Sequence[int], batch_size: int = 1, outside: float = 0.0
) -> Tensor:
    """Return logits ``(B, K, *size)``, float32 on ``x``'s device, blended from patches that overlap by half.

    Args:
        predict: maps ``(n, C, *patch_size)`` to logits ``(n, K, *patch_size)``.
        x: ``(B, C, *size)``; along sides that are shorter than the patch's it is padded, evenly on both ends.
        patch_size: one side for each dimension of ``size``.
        batch_size: patches of an item that are predicted together.
        outside: the value to pad with.
    """
    size = x.shape[2:]
    spare = [max(side - length, 0) for side, length in zip(patch_size, size, strict=True)]
    if any(spare):
        x = F.pad(x, [end for n in reversed(spare) for end in (n // 2, n - n // 2)], value=outside)
    padded = x.shape[2:]
    corners = list(product(*(patch_starts(n, side) for n, side in zip(padded, patch_size, strict=True))))
    places = [tuple(slice(a, a + side) for a, side in zip(corner, patch_size, strict=True)) for corner in corners]
    weights = gaussian_weights(patch_size, x.device)
    weight_sum = torch.zeros(padded, device=x.device)
    for place in places:
        weight_sum[place] += weights
    blended = []
    for item in x:
        total = None
        for first in range(0, len(places), batch_size):
            chosen = places[first : first + batch_size]
            logits = predict(torch.stack([item[:, *place] for place in chosen])).float()
            if total is None:
                total = logits.new_zeros((logits.shape[1], *padded))
            for place, part in zip(chosen, logits, strict=True):
                total[:, *place] += part * weights
        blended.append(total.div_(weight_sum))
    whole = torch.stack(blended) if len(blended) > 1 else blended[0][None]
    return whole[:, :, *(slice(n // 2, n // 2 + length) for n, length in zip(spare, size, strict=True))]

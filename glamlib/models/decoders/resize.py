"""Bilinear resizing, as every part of the networks does it."""

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize ``(B, C, H, W)`` bilinearly to ``size``, corners not aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

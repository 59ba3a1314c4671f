"""From a network that wants maps of certain sizes, or gives one scale, to a feature pyramid of an image of any size."""

from collections.abc import Iterable
from math import ceil

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class Stages(nn.Module):
    """Stages one after another, of strides 4, 8, ...; gives the map after each, channels-first."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class SimplePyramid(nn.Module):
    """Four levels from the last map of a network of one scale: ``(B, C, H / 16, W / 16)``.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022), section 3: transposed
    convolutions to stride 4 and 8, the map itself at 16, its maximum at 32; its convolutions to a common width are
    left to the decoder, which has such.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        half, quarter = dim // 2, dim // 4
        self.dims = (quarter, half, dim, dim)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, 2), LayerNorm2d(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2)
        )
        self.up8 = nn.ConvTranspose2d(dim, half, 2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps ``(B, dims[i], H / stride, W / stride)`` of strides 4, 8, 16, 32."""
        return [self.up4(x), self.up8(x), x, F.max_pool2d(x, 2)]


class Backbone(nn.Module):
    """A feature pyramid of strides 4, 8, 16 and 32 for images of any size.

    The image is zero-padded at its ends to multiples of 32 pixels, and what lies beyond it is cut off the features.

    Args:
        body: takes ``(B, C_in, H, W)``, H and W multiples of 32. Gives a list of maps of the four strides, or, where
            ``dims`` is one number, one map of stride 16, on which a `SimplePyramid` is built.
        dims: channels of what the body gives.

    Attributes:
        dims: channels of each level.
    """

    def __init__(self, body: nn.Module, dims: tuple[int, ...] | int) -> None:
        super().__init__()
        self.body = body
        self.pyramid = SimplePyramid(dims) if isinstance(dims, int) else None
        self.dims = dims if self.pyramid is None else self.pyramid.dims

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return ``(B, dims[i], ceil(H / stride), ceil(W / stride))`` of each stride for ``(B, C_in, H, W)``."""
        height, width = x.shape[2:]
        levels = self.body(F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])))
        if self.pyramid is not None:
            levels = self.pyramid(levels)
        return [
            level[:, :, : ceil(height / stride), : ceil(width / stride)]
            for level, stride in zip(levels, STRIDES, strict=True)
        ]

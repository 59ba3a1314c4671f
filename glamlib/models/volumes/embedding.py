"""How nnFormer makes patches of voxels, halves a map, and doubles it: by convolutions.

Source: Zhou et al., "nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer" (IEEE TIP 2023), section
3.2; parameter names, and the places of activations and norms, are those of themyrl/medseg at 35de82e.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from glamlib.models.encoder import padding_to


class ConvPair(nn.Module):
    """Two convolutions of 3 x 3 x 3, GELU and norm after each (after the first alone if ``is_last``).

    ``(B, C_in, *size)`` to ``(B, C, *ceil(size / stride))``; the first convolution has the stride.
    """

    def __init__(self, in_channels: int, channels: int, stride: tuple[int, ...], is_last: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, channels, 3, stride, padding=1)
        self.norm1 = nn.LayerNorm(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm2 = None if is_last else nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(F.gelu(self.conv1(x)).movedim(1, -1)).movedim(-1, 1)
        x = self.conv2(x)
        return x if self.norm2 is None else self.norm2(F.gelu(x).movedim(1, -1)).movedim(-1, 1)


class VolumeEmbed(nn.Module):
    """Overlapping patches to channels-last features: ``(B, C_in, *size)`` to ``(B, *ceil(size / patch), C)``.

    Args:
        in_channels, dim: channels of the volume, and C.
        patch_size: voxels of a patch along each dimension, each 1, 2 or 4: the strides of two pairs of convolutions.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: tuple[int, ...]) -> None:
        super().__init__()
        self.patch_size = patch_size
        strides = tuple(min(p, 2) for p in patch_size)
        self.proj1 = ConvPair(in_channels, dim // 2, strides, is_last=False)
        self.proj2 = ConvPair(dim // 2, dim, tuple(p // s for p, s in zip(patch_size, strides, strict=True)), True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, padding_to(x.shape[2:], self.patch_size))
        return self.norm(self.proj2(self.proj1(x)).movedim(1, -1))  # (B, *size, C)


class VolumeMerging(nn.Module):
    """Halve the map and double the channels: ``(B, *size, C)`` to ``(B, *ceil(size / 2), 2 C)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.reduction = nn.Conv3d(dim, 2 * dim, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.gelu(x)).movedim(-1, 1)
        return self.reduction(F.pad(x, padding_to(x.shape[2:], (2, 2, 2)))).movedim(1, -1)


class VolumeExpand(nn.Module):
    """Double the map and halve the channels: ``(B, *size, 2 C)`` to ``(B, *2 size, C)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.ConvTranspose3d(dim, dim // 2, 2, 2)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """Expand and cut to ``size`` (the merging had padded an odd map)."""
        x = self.up(self.norm(x).movedim(-1, 1)).movedim(1, -1)
        return x[(slice(None), *(slice(0, s) for s in size))]

"""How nnFormer makes patches of voxels, halves a map, and doubles it: by convolutions.

Source: Zhou et al., "nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer" (IEEE TIP 2023), section
3.2; parameter names, and the places of activations and norms, are those of themyrl/medseg at 35de82e.


MERGED: nnFormer's decoder: up from the last stage, the skip added and a stage of blocks at every resolution.

MERGED: VolumeSegmenter: nnFormer or GLAM-nnFormer, from a volume of any size to logits at its size.

Sources: Zhou et al., nnFormer (IEEE TIP 2023), in the form of themyrl/medseg at 35de82e: convolutions for its skip and
downsampling paths, windows of a size of their own a stage; Themyr et al. (WACV 2023), section 3.1, for the tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from glamlib.models.config import VolumeConfig
from glamlib.models.encoder import Encoder, init_linear, padding_to, stage_drop_paths
from glamlib.models.stage import Stage


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


class VolumeDecoder(nn.Module):
    """From the encoder's pyramid to logits at the padded volume's size.

    Args:
        stages: of each level but the coarsest, highest resolution first; their tokens start anew.
        dims: channels of each level.
        patch_size: voxels of a patch; the head undoes the patch embedding.
        num_classes: channels of the logits.
    """

    def __init__(
        self, stages: list[Stage], dims: tuple[int, ...], patch_size: tuple[int, ...], num_classes: int
    ) -> None:
        super().__init__()
        self.ups = nn.ModuleList(VolumeExpand(dim) for dim in dims[1:])
        self.layers_up = nn.ModuleList(stages)
        self.head = nn.ConvTranspose3d(dims[0], num_classes, patch_size, patch_size)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits ``(B, num_classes, *padded size)`` of features ``(B, C_i, *size_i)``, highest first.

        Also the map of each level, shaped as ``features``.
        """
        maps = [features[-1]]
        for up, stage, skip in reversed(list(zip(self.ups, self.layers_up, features, strict=False))):
            x = up(maps[0].movedim(1, -1), tuple(skip.shape[2:]))  # (B, *size_i, C_i)
            maps.insert(0, stage(x + skip.movedim(1, -1)).movedim(-1, 1))
        return self.head(maps[0]), maps


@dataclass(frozen=True)
class VolumeParts:
    """What a network is made of where the paper and the released code differ; as it stands, the paper's.

    Attributes:
        make_stage: `Stage` or one like it.
        auxiliary_side: voxels that an auxiliary head makes of a patch along each dimension; None for a patch's own.
        max_auxiliary: auxiliary heads at most; None for one on each level between the finest and the coarsest.
        initialise: whether linear layers are initialised as the configuration says, or left as PyTorch makes them.
    """

    make_stage: Callable[..., Stage] = Stage
    auxiliary_side: int | None = None
    max_auxiliary: int | None = None
    initialise: bool = True


class VolumeSegmenter(nn.Module):
    """Semantic segmentation of volumes.

    Args:
        config: the model.
        num_classes: channels of the logits.
        in_channels: channels of the volume.
        parts: see `VolumeParts`.
    """

    def __init__(
        self, config: VolumeConfig, num_classes: int, in_channels: int = 1, parts: VolumeParts | None = None
    ) -> None:
        super().__init__()
        parts = parts or VolumeParts()
        self.config = config
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.encoder = Encoder(
            in_channels,
            config.embed_dim,
            config.depths,
            config.num_heads,
            config.windows,
            num_global_tokens=config.num_global_tokens,
            mixer=config.mixer,
            mlp_ratio=config.mlp_ratio,
            drop_path=config.drop_path,
            ndim=config.ndim,
            make_stage=parts.make_stage,
            make_embedding=partial(VolumeEmbed, patch_size=config.patch),
            make_merging=VolumeMerging,
        )
        dims = self.encoder.dims
        self.decoder = VolumeDecoder(self._decoder_stages(parts), dims, config.patch, num_classes)
        side = config.patch if parts.auxiliary_side is None else (parts.auxiliary_side,) * config.ndim
        self.auxiliary = nn.ModuleList(
            nn.ConvTranspose3d(dim, num_classes, side, side) for dim in dims[1:-1][: parts.max_auxiliary]
        )
        if parts.initialise:
            init_linear(self, config.weight_init)

    def _decoder_stages(self, parts: VolumeParts) -> list[Stage]:
        """Return the decoder's stages, highest resolution first; drop path rises from the coarsest to the finest."""
        config = self.config
        rates = stage_drop_paths(config.drop_path, config.depths[-2::-1])[::-1]
        return [
            parts.make_stage(
                dim=self.encoder.dims[level],
                drop_paths=rates[level],
                num_heads=config.num_heads[level],
                window_size=(config.windows[level],) * config.ndim,
                num_global_tokens=config.tokens_of(level),
                mixer=config.mixer,
                mlp_ratio=config.mlp_ratio,
                level=level,
            )
            for level in range(len(config.depths) - 1)
        ]

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the pyramid of ``(B, in_channels, D, H, W)``: ``(B, C_i, d_i, h_i, w_i)``, highest first."""
        return self.encoder(x)

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits ``(B, num_classes, D, H, W)`` for volumes ``(B, in_channels, D, H, W)`` of any size.

        With ``auxiliary``, also the logits for deep supervision: of every level between the finest and the coarsest,
        finest first, the k-th (from 1) at ``ceil(size / 2**k)``, half the size, a quarter, and so on.
        """
        logits, maps = self.decoder(self.encoder(x))
        size = tuple(x.shape[2:])
        logits = _cut(logits, size)
        if not auxiliary:
            return logits
        lower = []
        for k, head in enumerate(self.auxiliary, start=1):
            scales = zip(size, head.stride, self.config.patch, strict=True)
            lower.append(_cut(head(maps[k]), tuple(-(-s * side // (p * 2**k)) for s, side, p in scales)))
        return logits, lower


def _cut(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Cut off the padded border of ``(B, C, *padded)``: ``(B, C, *size)``."""
    return x[(slice(None), slice(None), *(slice(0, s) for s in size))]

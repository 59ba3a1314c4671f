"""nnFormer and GLAM-nnFormer: convolutional embedding, merging and expanding; the decoder; logits of any volume.

Zhou et al., "nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer" (IEEE TIP 2023), section 3.2.
Parameter names, and the places of activations and norms, are those of themyrl/medseg at 35de82e.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch.nn.functional as F
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from glamlib.layers.windows import padding_to
from glamlib.models.config import VolumeConfig
from glamlib.models.encoder import Encoder, Stage, init_linear
from glamlib.models.segmenter import PAPER, EncoderDecoder, Parts
from glamlib.models.upernet import cut


class ChannelNorm(nn.LayerNorm):
    """The norm of the channels of maps ``(B, C, *size)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def _conv_pair(in_channels: int, channels: int, stride: tuple[int, ...], **end: nn.Module) -> nn.Sequential:
    convs = nn.Conv3d(in_channels, channels, 3, stride, padding=1), nn.Conv3d(channels, channels, 3, padding=1)
    return nn.Sequential(
        OrderedDict(conv1=convs[0], act1=nn.GELU(), norm1=ChannelNorm(channels), conv2=convs[1], **end)
    )


class VolumeEmbed(nn.Sequential):
    """Turn ``(B, C_in, *size)`` into ``(B, *ceil(size / patch), C)``: four convolutions, GELU and a norm after each.

    The first and the third have strides 1 or 2, which make the patch. No GELU follows the fourth.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: tuple[int, ...]) -> None:
        half, first = dim // 2, tuple(min(p, 2) for p in patch_size)
        second = tuple(p // s for p, s in zip(patch_size, first, strict=True))
        proj1 = _conv_pair(in_channels, half, first, act2=nn.GELU(), norm2=ChannelNorm(half))
        super().__init__(OrderedDict(proj1=proj1, proj2=_conv_pair(half, dim, second), norm=ChannelNorm(dim)))
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, padding_to(x.shape[2:], self.patch_size))).movedim(1, -1)


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
        """Expand and cut to ``size``, because the merging had padded an odd map."""
        return cut(self.up(self.norm(x).movedim(-1, 1)), size).movedim(1, -1)


class VolumeDecoder(nn.Module):
    """From the encoder's pyramid to logits at the padded volume's size; the tokens of its stages start anew.

    Stages mirror the encoder's; drop path rises from the coarsest to the finest. The head undoes the patch embedding.
    """

    def __init__(self, config: VolumeConfig, num_classes: int, make_stage: Callable[..., Stage] = Stage) -> None:
        super().__init__()
        rates = calculate_drop_path_rates(config.drop_path, config.depths[-2::-1], stagewise=True)[::-1]
        self.ups = nn.ModuleList(VolumeExpand(dim) for dim in config.dims[1:])
        self.layers_up = nn.ModuleList(make_stage(config, i, each) for i, each in enumerate(rates))
        self.head = nn.ConvTranspose3d(config.dims[0], num_classes, config.patch, config.patch)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits ``(B, num_classes, *padded size)`` and the map of each level, shaped as the features."""
        maps = [features[-1]]
        for up, stage, skip in reversed(list(zip(self.ups, self.layers_up, features, strict=False))):
            x = up(maps[0].movedim(1, -1), tuple(skip.shape[2:]))  # (B, *size_i, C_i)
            maps.insert(0, stage(x + skip.movedim(1, -1)).movedim(-1, 1))
        return self.head(maps[0]), maps


class VolumeSegmenter(EncoderDecoder):
    """Semantic segmentation of volumes; see `Parts` for ``parts``."""

    def __init__(self, config: VolumeConfig, num_classes: int, in_channels: int = 1, parts: Parts = PAPER) -> None:
        super().__init__(config, num_classes, in_channels)
        embed = VolumeEmbed(in_channels, config.embed_dim, config.patch)
        self.encoder = Encoder(config, in_channels, parts.make_stage, patch_embed=embed, make_merging=VolumeMerging)
        self.decoder = VolumeDecoder(config, num_classes, parts.make_stage)
        side = config.patch if parts.auxiliary_side is None else (parts.auxiliary_side,) * config.ndim
        self.auxiliary = nn.ModuleList(
            nn.ConvTranspose3d(dim, num_classes, side, side) for dim in config.dims[1:-1][: parts.max_auxiliary]
        )
        if parts.initialise:
            init_linear(self, config.weight_init)

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits ``(B, num_classes, D, H, W)`` for volumes ``(B, in_channels, D, H, W)`` of any size.

        With ``auxiliary``, also the logits for deep supervision of every level between the finest and the coarsest,
        finest first: the k-th (from 1) at ``ceil(size / 2**k)``.
        """
        logits, maps = self.decoder(self.encoder(x))
        size = x.shape[2:]
        lower = []
        for k, head in enumerate(self.auxiliary if auxiliary else (), start=1):
            scales = zip(size, head.stride, self.config.patch, strict=True)
            lower.append(cut(head(maps[k]), [-(-s * side // (p * 2**k)) for s, side, p in scales]))
        logits = cut(logits, size)
        return (logits, lower) if auxiliary else logits

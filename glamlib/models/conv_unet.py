"""The convolutional reference of a study: nnU-Net's plain network, MONAI's DynUNet, on images and on volumes."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from glamlib.errors import Count, InputError
from glamlib.layers.windows import padding_to
from glamlib.models.config import Config, Counts
from glamlib.models.upernet import cut

_GROUPS = 8  # of the group norms, which serve small batches and small maps alike


@dataclass(frozen=True, kw_only=True)
class ConvConfig(Config):
    """A U-Net: ``widths`` are the channels of its levels, each at half the last one's size, the first at 1 / stride."""

    widths: Counts
    stride: Count = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) < 3 or any(width % _GROUPS for width in self.widths):
            raise InputError(f"widths={list(self.widths)}: must be at least 3 multiples of {_GROUPS}")


@dataclass(frozen=True, kw_only=True)
class ConvVolumeConfig(ConvConfig):
    """The same on volumes."""

    ndim: ClassVar[int] = 3


class ConvEncoder(nn.Module):
    """Blocks of two convolutions, the first of which halves the map; ``dims`` are their channels."""

    def __init__(self, dims: Counts, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.dims, self.body = dims, nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the map of every block, highest first."""
        return [x := block(x) for block in self.body]


class ConvUNet(nn.Module):
    """Semantic segmentation by convolutions alone; volumes are supervised at every level but the last."""

    def __init__(self, config: ConvConfig, num_classes: int, in_channels: int = 3) -> None:
        from monai.networks.nets import DynUNet  # importing MONAI takes seconds

        super().__init__()
        self.config, self.num_classes, self.in_channels = config, num_classes, in_channels
        dims, strides = config.widths, [config.stride, *[2] * (len(config.widths) - 1)]
        norm = ("group", {"num_groups": _GROUPS})
        net = DynUNet(
            config.ndim, in_channels, num_classes, [3] * len(dims), strides, strides[1:], dims, norm_name=norm
        )
        self.encoder = ConvEncoder(dims, [net.input_block, *net.downsamples, net.bottleneck])
        self.decoder = nn.ModuleDict({"ups": net.upsamples, "head": net.output_block})
        heads = dims[1:-1] if config.ndim == 3 else ()
        self.auxiliary = nn.ModuleList(nn.Conv3d(dim, num_classes, 1) for dim in heads)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the pyramid of ``(B, in_channels, *size)``, zero-padded at its ends to whole cells of the last one."""
        multiple = self.config.stride * 2 ** (len(self.config.widths) - 1)
        return self.encoder(F.pad(x, padding_to(x.shape[2:], (multiple,) * self.config.ndim)))

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, list[Tensor] | None]:
        """Return logits ``(B, num_classes, *size)`` for ``(B, in_channels, *size)`` of any size.

        With ``auxiliary``, also None for images; for volumes the logits of every level between the finest and the
        coarsest, finest first: the k-th (from 1) at ``ceil(size / (stride * 2**k))``.
        """
        maps = self.forward_features(x)
        for level, up in enumerate(self.decoder["ups"], start=2):
            maps[-level] = up(maps[1 - level], maps[-level])
        stride, mode = self.config.stride, "trilinear" if self.config.ndim == 3 else "bilinear"
        logits = F.interpolate(self.decoder["head"](maps[0]), scale_factor=float(stride), mode=mode)
        logits = cut(logits, x.shape[2:])
        if not auxiliary:
            return logits
        levels = enumerate(self.auxiliary, start=1)
        lower = [cut(head(maps[k]), [-(-side // (stride * 2**k)) for side in x.shape[2:]]) for k, head in levels]
        return logits, lower if self.config.ndim == 3 else None

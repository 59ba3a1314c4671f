"""UPerNet and its auxiliary head, and a linear decoder that adds no context.

UPerNet: Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (ECCV 2018); mmsegmentation's weights load.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamlib.errors import InputError


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize ``(B, C, H, W)`` bilinearly to ``size``, corners not aligned."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def cut(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut off the ends of ``(B, C, *padded)`` that are beyond ``size``: ``(B, C, *size)``."""
    return x[(slice(None), slice(None), *map(slice, size))]


def onto(x: Tensor, size: tuple[int, ...], factor: int | None) -> Tensor:
    """Enlarge ``(B, C, h, w)`` by ``factor`` and cut it to ``size``: what it shows keeps its place, padded or not.

    Without a factor it is resized to ``size``, as in mmsegmentation: where merging had padded an odd map, it shifts.
    """
    return resize(x, size) if factor is None else cut(resize(x, tuple(factor * side for side in x.shape[2:])), size)


class LinearDecoder(nn.Module):
    """A linear classifier of each patch on every level, their logits summed (Long et al., "FCN", CVPR 2015, fig. 3).

    Apart from resizing it reads no neighbour, so all context comes from the encoder. ``factor`` is what halves a level.
    """

    def __init__(self, dims: tuple[int, ...], num_classes: int, factor: int | None = 2) -> None:
        super().__init__()
        self.factors = [factor and factor**level for level in range(len(dims))]
        self.conv_seg = nn.ModuleList(nn.Conv2d(dim, num_classes, 1) for dim in dims)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits ``(B, num_classes, h, w)`` at the size of ``features[0]``."""
        size = features[0].shape[2:]
        levels = zip(self.conv_seg, features, self.factors, strict=True)
        return sum(onto(conv(feature), size, factor) for conv, feature, factor in levels)


def conv_module(in_channels: int, channels: int, kernel_size: int) -> nn.Sequential:
    """Return a convolution without bias, batch norm and ReLU; the map keeps its size."""
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU()))


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


class UPerNetDecoder(nn.Module):
    """Pyramid pooling on the last level, then a feature pyramid over all levels.

    The pooling averages over the whole map, so this decoder adds global context of its own. A level is enlarged by
    ``factor`` to the next; None is mmsegmentation's way, see `onto`.
    """

    pool_scales = (1, 2, 3, 6)

    def __init__(
        self, dims: tuple[int, ...], channels: int, num_classes: int, dropout: float = 0.1, factor: int | None = 2
    ) -> None:
        super().__init__()
        self.factors = [factor and factor**level for level in range(len(dims))]
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_module(dims[-1], channels, 1)) for scale in self.pool_scales
        )
        self.bottleneck = conv_module(dims[-1] + len(self.pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(conv_module(dim, channels, 1) for dim in dims[:-1])
        self.fpn_convs = nn.ModuleList(conv_module(channels, channels, 3) for _ in dims[:-1])
        self.fpn_bottleneck = conv_module(len(dims) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(channels, num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits ``(B, num_classes, h, w)`` at the size of ``features[0]``; InputError for B = 1 in training."""
        last = features[-1]
        if self.training and last.shape[0] == 1:
            raise InputError("a batch of 1: UPerNet's batch norm needs at least 2 images a batch in training")
        pooled = [resize(module(last), last.shape[2:]) for module in self.psp_modules]
        top = self.bottleneck(torch.cat([last, *pooled], dim=1))  # (B, channels, h_last, w_last)
        levels = [*(conv(feature) for conv, feature in zip(self.lateral_convs, features, strict=False)), top]
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + onto(levels[i + 1], levels[i].shape[2:], self.factors[1])
        outputs = [*(conv(level) for conv, level in zip(self.fpn_convs, levels, strict=False)), top]
        size = features[0].shape[2:]
        outputs = [onto(output, size, factor) for output, factor in zip(outputs, self.factors, strict=True)]
        return self.conv_seg(self.dropout(self.fpn_bottleneck(torch.cat(outputs, dim=1))))


class FCNHead(nn.Sequential):
    """UPerNet's auxiliary head, 3x3 convolution and classifier: ``(B, dim, h, w)`` to ``(B, num_classes, h, w)``."""

    def __init__(self, dim: int, channels: int, num_classes: int, dropout: float = 0.1) -> None:
        convs = nn.Sequential(conv_module(dim, channels, 3))
        classifier = _classifier(channels, num_classes)
        super().__init__(OrderedDict(convs=convs, dropout=nn.Dropout2d(dropout), conv_seg=classifier))

"""From the maps of any backbone to a feature pyramid of an image of any size."""

from collections.abc import Callable
from functools import partial
from math import ceil

import torch.nn.functional as F
from einops import rearrange
from timm.layers import LayerNorm2d, calculate_drop_path_rates
from timm.models.twins import Block
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig

STRIDES = (4, 8, 16, 32)


class BlockStage(nn.Module):
    """Patches and blocks: ``(B, C_in, H, W)`` to ``(B, C, H / stride, W / stride)``.

    A subclass sets ``blocks`` and, unless it has an `embed` of its own, the convolution ``proj`` and its ``norm``.
    """

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return patches ``(B, h * w, C)``, after tokens if there are some, and (h, w)."""
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), tuple(x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        x, size = self.embed(x)
        for block in self.blocks:
            x = block(x, size)
        return rearrange(x[:, -size[0] * size[1] :], "b (h w) c -> b c h w", h=size[0]).contiguous()


def block_of(attention: nn.Module, config: BackboneConfig, i: int, drop_path: float, eps: float = 1e-6) -> Block:
    """Return a block of stage i: an attention that takes ``(x, size)``, and an MLP, each residual and pre-norm."""
    sizes = (config.embed_dims[i], config.num_heads[i], config.mlp_ratios[i])
    block = Block(*sizes, drop_path=drop_path, norm_layer=partial(nn.LayerNorm, eps=eps), ws=1)
    block.attn = attention
    return block


class Stages(nn.Module):
    """Stages of strides 4, 8, 16 and 32, or three and the maximum of the last.

    ``make_stage`` takes the config, the stage's number, the channels that come in and the blocks' drop path rates.
    """

    def __init__(self, make_stage: Callable[..., nn.Module], config: BackboneConfig, in_channels: int) -> None:
        super().__init__()
        dims, rates = config.embed_dims, calculate_drop_path_rates(config.drop_path, config.depths, stagewise=True)
        self.dims = (*dims, dims[-1])[: len(STRIDES)]
        self.stages = nn.ModuleList(
            make_stage(config, i, channels, rates[i]) for i, channels in enumerate((in_channels, *dims[:-1]))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the map after each stage, channels-first; none is normalised."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps if len(maps) == len(STRIDES) else [*maps, F.max_pool2d(x, 2)]


class SimplePyramid(nn.Module):
    """Four levels from the one map of a network of stride 16.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022), section 3: transposed
    convolutions to strides 4 and 8, the map itself at 16, its maximum at 32. The convolutions to a common width are the
    decoder's.
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

    The image is zero-padded at its ends to multiples of 32 pixels; features beyond the image are cut off. ``body``
    gives maps of the four strides, or one of stride 16, which gets a `SimplePyramid`. ``dims`` are their channels.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.pyramid = SimplePyramid(body.dims) if isinstance(body.dims, int) else nn.Identity()
        self.dims = body.dims if isinstance(body.dims, tuple) else self.pyramid.dims

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return ``(B, dims[i], ceil(H / stride), ceil(W / stride))`` of each stride for ``(B, C_in, H, W)``."""
        height, width = x.shape[2:]
        levels = self.pyramid(self.body(F.pad(x, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))))
        return [
            level[:, :, : ceil(height / stride), : ceil(width / stride)]
            for level, stride in zip(levels, STRIDES, strict=True)
        ]

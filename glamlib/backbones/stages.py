"""Pyramids of stages, each patches and blocks: PVT (v1), our composition of timm's parts, and CvT.

Sources: Wang et al., "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions" (ICCV
2021), whai362/PVT, classification/pvt.py (Twins-PCPVT took its block over, so timm's is used); Wu et al., "CvT:
Introducing Convolutions to Vision Transformers" (ICCV 2021), microsoft/CvT, lib/models/cls_cvt.py.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import calculate_drop_path_rates, trunc_normal_
from timm.models.twins import Block, GlobalSubSampleAttn, PatchEmbed
from torch import Tensor, nn

from glamlib.backbones.config import STRIDES, BackboneConfig
from glamlib.models.upernet import resize

IMAGE_SIZE = 224  # side in pixels of the images that the positions are learned for
SR_RATIOS = (8, 4, 2, 1)  # how far each stage reduces keys and values along each side


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


class PVTStage(BlockStage):
    """PVT's: patches, learned positions (interpolated to the map), blocks.

    PVT's last stage has a class token; as in its own code for dense prediction, it is left out here.
    """

    def __init__(self, config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> None:
        super().__init__()
        dim, patch, grid = config.embed_dims[i], 4 if i == 0 else 2, IMAGE_SIZE // STRIDES[i]
        self.patch_embed = PatchEmbed(grid * patch, patch, in_channels, dim)
        self.pos_embed = nn.Parameter(trunc_normal_(torch.zeros(1, dim, grid, grid), std=0.02))
        self.blocks = nn.ModuleList(
            block_of(GlobalSubSampleAttn(dim, config.num_heads[i], sr_ratio=SR_RATIOS[i]), config, i, rate)
            for rate in drop_paths
        )

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, size = self.patch_embed(x)  # (B, h * w, C)
        return x + resize(self.pos_embed, size).flatten(2).transpose(1, 2), size


class ConvProjection(nn.Module):
    """CvT's: depth-wise 3 x 3 convolution, batch norm, linear layer; a class token takes only the last."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=stride, padding=1, groups=dim, bias=False)
        self.bn = nn.BatchNorm2d(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return ``(B, T + h' * w', C)`` for T class tokens and a map: ``(B, T + h * w, C)``, ``size`` (h, w)."""
        tokens, patches = x.tensor_split([-size[0] * size[1]], dim=1)
        patches = rearrange(patches, "b (h w) c -> b c h w", h=size[0])
        patches = self.bn(self.conv(patches)).flatten(2).transpose(1, 2)
        return self.linear(torch.cat([tokens, patches], dim=1))


class ConvAttention(nn.Module):
    """Attention to keys and values of half the resolution. As in the source, all channels scale the logits."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = dim**-0.5
        self.q = ConvProjection(dim, stride=1)
        self.k = ConvProjection(dim, stride=2)
        self.v = ConvProjection(dim, stride=2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return ``(B, T + h * w, C)`` for the same; ``size`` is (h, w)."""
        q, k, v = (
            rearrange(projection(x, size), "b n (heads d) -> b heads n d", heads=self.num_heads)
            for projection in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(rearrange(y, "b heads n d -> b n (heads d)"))


class CvTStage(BlockStage):
    """CvT's: an overlapping convolution, then blocks.

    As in the source, only the last of the three stages has a class token and drops paths.
    """

    def __init__(self, config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> None:
        super().__init__()
        dim, is_last = config.embed_dims[i], i == 2
        kernel, stride, padding = (7, 4, 2) if i == 0 else (3, 2, 1)
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride, padding)
        self.norm = nn.LayerNorm(dim)
        self.cls_token = nn.Parameter(trunc_normal_(torch.zeros(1, 1, dim), std=0.02)) if is_last else None
        rates = calculate_drop_path_rates(config.drop_path if is_last else 0.0, config.depths[i])
        self.blocks = nn.ModuleList(
            block_of(ConvAttention(dim, config.num_heads[i]), config, i, rate, eps=1e-5) for rate in rates
        )

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, size = super().embed(x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x, size

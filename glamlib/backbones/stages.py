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
from timm.models.twins import Block, GlobalSubSampleAttn
from torch import Tensor, nn

from glamlib.backbones.config import STRIDES, BackboneConfig
from glamlib.models.upernet import resize


class ConvStage(nn.Module):
    """A convolution to patches, learned positions or a token in front where there are some, and blocks.

    Each of ``attentions`` takes ``(x, size)`` and becomes a block with an MLP, each residual and pre-norm. Positions
    are those of ``grid`` x ``grid`` patches, interpolated to the map.
    """

    def __init__(
        self,
        config: BackboneConfig,
        i: int,
        proj: nn.Conv2d,
        attentions: list[nn.Module],
        drop_paths: list[float],
        has_token: bool = False,
        grid: int = 0,
        eps: float = 1e-6,
        patch_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        dim = config.embed_dims[i]
        self.proj, self.norm = proj, nn.LayerNorm(dim, patch_eps)
        self.token = nn.Parameter(trunc_normal_(torch.zeros(1, 1, dim), std=0.02)) if has_token else None
        self.pos_embed = nn.Parameter(trunc_normal_(torch.zeros(1, dim, grid, grid), std=0.02)) if grid else None
        sizes, norm = (dim, config.num_heads[i], config.mlp_ratios[i]), partial(nn.LayerNorm, eps=eps)
        self.blocks = nn.ModuleList(Block(*sizes, drop_path=rate, norm_layer=norm, ws=1) for rate in drop_paths)
        for block, attention in zip(self.blocks, attentions, strict=True):
            block.attn = attention

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H / stride, W / stride)`` for ``(B, C_in, H, W)``."""
        x = self.proj(x)
        size = tuple(x.shape[2:])
        x = self.norm(x.flatten(2).transpose(1, 2))  # (B, h * w, C)
        if self.pos_embed is not None:
            x = x + resize(self.pos_embed, size).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, size)
        return rearrange(x[:, -size[0] * size[1] :], "b (h w) c -> b c h w", h=size[0]).contiguous()


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


def pvt_stage(config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> ConvStage:
    """Return PVT's stage i. The last has a class token; as in PVT's code for dense prediction, it is left out here."""
    dim, heads, patch = config.embed_dims[i], config.num_heads[i], 4 if i == 0 else 2
    attentions = [GlobalSubSampleAttn(dim, heads, sr_ratio=(8, 4, 2, 1)[i]) for _ in drop_paths]
    proj = nn.Conv2d(in_channels, dim, patch, patch)
    return ConvStage(config, i, proj, attentions, drop_paths, grid=224 // STRIDES[i])  # of ImageNet's 224 pixels


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
        self.q, self.k, self.v = (ConvProjection(dim, stride) for stride in (1, 2, 2))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return ``(B, T + h * w, C)`` for the same; ``size`` is (h, w)."""
        q, k, v = (
            rearrange(projection(x, size), "b n (heads d) -> b heads n d", heads=self.num_heads)
            for projection in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(rearrange(y, "b heads n d -> b n (heads d)"))


def cvt_stage(config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> ConvStage:
    """Return CvT's stage i. As in the source, only the last of three has a class token and drops paths."""
    proj = nn.Conv2d(in_channels, config.embed_dims[i], *((7, 4, 2) if i == 0 else (3, 2, 1)))
    attentions = [ConvAttention(config.embed_dims[i], config.num_heads[i]) for _ in drop_paths]
    rates = calculate_drop_path_rates(config.drop_path if i == 2 else 0.0, config.depths[i])
    return ConvStage(config, i, proj, attentions, rates, has_token=i == 2, eps=1e-5)

"""CvT: convolutions instead of linear maps of patches, and before the projections to queries, keys and values.

Source: Wu et al., "CvT: Introducing Convolutions to Vision Transformers" (ICCV 2021); microsoft/CvT,
lib/models/cls_cvt.py.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import Backbone, Stages
from glamlib.models.encoder import stage_drop_paths


class ConvProjection(nn.Module):
    """A depth-wise 3x3 convolution with batch norm, then a linear layer; a class token takes the linear layer only."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=stride, padding=1, groups=dim, bias=False)
        self.bn = nn.BatchNorm2d(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return ``(B, T + h' * w', C)`` for T class tokens and a map: ``(B, T + h * w, C)``, ``size`` (h, w)."""
        tokens = x.shape[1] - size[0] * size[1]
        patches = rearrange(x[:, tokens:], "b (h w) c -> b c h w", h=size[0])
        patches = self.bn(self.conv(patches)).flatten(2).transpose(1, 2)
        return self.linear(torch.cat([x[:, :tokens], patches], dim=1))


class ConvAttention(nn.Module):
    """Attention to keys and values of half the resolution. Logits are scaled by all channels, as in the source."""

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


class CvTBlock(nn.Module):
    """Attention and MLP, each on normalised input and added to it."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ConvAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, dim * mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CvTStage(nn.Module):
    """An overlapping convolution, then blocks; the last stage has a class token.

    Args:
        kernel, stride, padding: of the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        kernel: int,
        stride: int,
        padding: int,
        num_heads: int,
        mlp_ratio: int,
        drop_paths: list[float],
        has_class_token: bool,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if has_class_token else None
        if has_class_token:
            trunc_normal_(self.cls_token, std=0.02)
        self.blocks = nn.ModuleList(CvTBlock(dim, num_heads, mlp_ratio, drop_path) for drop_path in drop_paths)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H / stride, W / stride)`` for ``(B, C_in, H, W)``."""
        x = self.proj(x)
        size = tuple(x.shape[2:])
        x = self.norm(x.flatten(2).transpose(1, 2))  # (B, h * w, C)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, size)
        return rearrange(x[:, -size[0] * size[1] :], "b (h w) c -> b c h w", h=size[0])


class CvT(Stages):
    """CvT ends at stride 16: the level of stride 32 is the maximum of the last."""

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = super().forward(x)
        return [*maps, F.max_pool2d(maps[-1], 2)]


def cvt(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return CvT; its maps are not normalised. As in the source, only the last stage drops paths."""
    dims = config.embed_dims
    stages = (
        CvTStage(
            in_channels if i == 0 else dims[i - 1],
            dims[i],
            *((7, 4, 2) if i == 0 else (3, 2, 1)),
            config.num_heads[i],
            config.mlp_ratios[i],
            stage_drop_paths(config.drop_path if i == 2 else 0.0, config.depths[i : i + 1])[0],
            has_class_token=i == 2,
        )
        for i in range(3)
    )
    return Backbone(CvT(stages), (*dims, dims[-1]))

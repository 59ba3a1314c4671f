"""CvT: convolutions in place of linear maps of patches, and before the projections to queries, keys and values.

Source: Wu et al., "CvT: Introducing Convolutions to Vision Transformers" (ICCV 2021); microsoft/CvT,
lib/models/cls_cvt.py.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import calculate_drop_path_rates, trunc_normal_
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import BlockStage, block_of


class ConvProjection(nn.Module):
    """A depth-wise 3 x 3 convolution with batch norm, then a linear layer; a class token takes only the latter."""

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
    """An overlapping convolution, then blocks.

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

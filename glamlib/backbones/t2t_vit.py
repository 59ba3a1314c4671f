"""T2T-ViT: neighbouring tokens are put together step by step until they are patches of 16 pixels; then a ViT.

Source: Yuan et al., "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet" (ICCV 2021);
yitu-opensource/T2T-ViT, models/t2t_vit.py and models/token_performer.py. The form with Performer's attention
(Choromanski et al., ICLR 2021) in the tokens-to-token part, which is linear in the number of tokens.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import resample_abs_pos_embed, trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import Backbone
from glamlib.models.encoder import stage_drop_paths

GRID = 14  # side in patches of the map that the positions are for
DROPOUT = 0.1  # in the tokens-to-token part


class TokenPerformer(nn.Module):
    """Attention by positive random features, and an MLP; the values are the shortcut, since the width changes.

    exp(q k) is the mean over random w of exp(w q - |q|^2 / 2) exp(w k - |k|^2 / 2); as in the source, the logits are
    not scaled by the width, and the w are drawn once.

    Args:
        in_dim: channels of what comes in. dim: channels of what goes out; half as many random features.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        features = dim // 2
        self.norm1 = nn.LayerNorm(in_dim)
        self.kqv = nn.Linear(in_dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(DROPOUT)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.Dropout(DROPOUT))
        self.register_buffer("w", nn.init.orthogonal_(torch.empty(features, dim)) * sqrt(features))

    def features(self, x: Tensor) -> Tensor:
        """Return positive features ``(B, N, m)`` of queries or keys ``(B, N, C)``."""
        return torch.exp(F.linear(x, self.w) - x.square().sum(-1, keepdim=True) / 2) / sqrt(len(self.w))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what each query reads, all ``(B, N, C)``."""
        q, k = self.features(q), self.features(k)
        total = q @ k.sum(dim=1)[:, :, None]  # (B, N, 1)
        return q @ (k.transpose(1, 2) @ v) / (total + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, N, dim)`` for ``(B, N, in_dim)``."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = v + self.drop(self.proj(self.attend(q, k, v)))
        return x + self.mlp(self.norm2(x))


def soft_split(x: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, int]:
    """Return overlapping patches ``(B, h * w, C * kernel**2)`` of a map ``(B, C, H, W)``, and h."""
    rows = (x.shape[2] + 2 * padding - kernel) // stride + 1
    return F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2), rows


class TokensToToken(nn.Module):
    """Two steps of attention and putting together, and a projection: ``(B, C_in, H, W)`` to ``(B, H W / 256, C)``."""

    def __init__(self, in_channels: int, token_dim: int, dim: int) -> None:
        super().__init__()
        self.attention1 = TokenPerformer(in_channels * 7 * 7, token_dim)
        self.attention2 = TokenPerformer(token_dim * 3 * 3, token_dim)
        self.project = nn.Linear(token_dim * 3 * 3, dim)

    def forward(self, x: Tensor) -> Tensor:
        x, rows = soft_split(x, kernel=7, stride=4, padding=2)
        for attention in (self.attention1, self.attention2):
            x = rearrange(attention(x), "b (h w) c -> b c h w", h=rows)
            x, rows = soft_split(x, kernel=3, stride=2, padding=1)
        return self.project(x)


def sinusoid(length: int, dim: int) -> Tensor:
    """Return sines (even channels) and cosines (odd) of each place (Vaswani et al., 2017), ``(1, length, dim)``."""
    channel = torch.arange(dim)
    angle = torch.arange(length)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())[None]


class T2TViT(nn.Module):
    """The last map, normalised; the fixed positions of a class token and 14 x 14 patches are interpolated."""

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__()
        token_dim, dim = config.embed_dims
        self.tokens_to_token = TokensToToken(in_channels, token_dim, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        trunc_normal_(self.cls_token, std=0.02)
        self.register_buffer("pos_embed", sinusoid(1 + GRID**2, dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads[0], config.mlp_ratios[0], qkv_bias=False, drop_path=drop_path)
            for drop_path in stage_drop_paths(config.drop_path, config.depths)[0]
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H / 16, W / 16)``."""
        grid = [size // 16 for size in x.shape[2:]]
        x = self.tokens_to_token(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + resample_abs_pos_embed(self.pos_embed, grid)
        for block in self.blocks:
            x = block(x)
        return rearrange(self.norm(x)[:, 1:], "b (h w) c -> b c h w", h=grid[0])


def t2t_vit(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return T2T-ViT."""
    return Backbone(T2TViT(config, in_channels), config.embed_dims[1])

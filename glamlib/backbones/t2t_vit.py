"""T2T-ViT's patches: neighbouring tokens are merged step by step until they are patches of 16 pixels, for a ViT.

Source: Yuan et al., "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet" (ICCV 2021);
yitu-opensource/T2T-ViT, models/t2t_vit.py and models/token_performer.py: the form with Performer's attention
(Choromanski et al., ICLR 2021) in the tokens-to-token part, which is linear in the number of tokens.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

DROPOUT = 0.1  # in the tokens-to-token part


class TokenPerformer(nn.Module):
    """Attention by positive random features, and an MLP; the values are the shortcut, since the width changes.

    exp(q k) is the mean over random w of exp(w q - |q|^2 / 2) exp(w k - |k|^2 / 2). As in the source, the logits are
    not scaled by the width, and the w (half as many as ``dim``) are drawn once.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_dim)
        self.kqv = nn.Linear(in_dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(DROPOUT)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.Dropout(DROPOUT))
        self.register_buffer("w", nn.init.orthogonal_(torch.empty(dim // 2, dim)) * sqrt(dim // 2))

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


class TokensToToken(nn.Module):
    """Two steps of attention and merging, and a projection: ``(B, C_in, H, W)`` to ``(B, H / 16, W / 16, C)``.

    It takes the place of timm's patch embedding; other arguments of that are ignored.
    """

    grid_size, num_patches = (14, 14), 14 * 14  # that the positions are for

    def __init__(self, in_chans: int, embed_dim: int, token_dim: int, **_: object) -> None:
        super().__init__()
        self.attention1 = TokenPerformer(in_chans * 7 * 7, token_dim)
        self.attention2 = TokenPerformer(token_dim * 3 * 3, token_dim)
        self.project = nn.Linear(token_dim * 3 * 3, embed_dim)

    def dynamic_feat_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // 16, size[1] // 16

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[2] // 4
        x = F.unfold(x, 7, padding=2, stride=4).transpose(1, 2)  # (B, H W / 16, 49 C_in)
        for attention in (self.attention1, self.attention2):
            x = rearrange(attention(x), "b (h w) c -> b c h w", h=rows)
            x = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)  # a quarter of the tokens, each 9 C_token wide
            rows //= 2
        return self.project(x).unflatten(1, (rows, -1))


def sinusoid(length: int, dim: int) -> Tensor:
    """Return sines (even channels) and cosines (odd) of each place (Vaswani et al., 2017), ``(1, length, dim)``."""
    channel = torch.arange(dim)
    angle = torch.arange(length)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())[None]

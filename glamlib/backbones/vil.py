"""ViL: every patch attends to its neighbourhood and to global tokens, which attend to all. Linear in the image.

Source: Zhang et al., "Multi-Scale Vision Longformer: A New Vision Transformer for High-Resolution Image Encoding" (ICCV
2021); microsoft/vision-longformer, src/models/msvit.py and src/models/layers/longformer2d.py. The form with relative
positions, one global token, weights shared between patches and tokens, and sliding chunks in all stages (the source
has full attention in the last two for images of 224 pixels, where the two are the same but for the table of positions).
In training the source may draw one neighbouring chunk at random to save time; here all are always seen.
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import Backbone, Stages
from glamlib.models.encoder import stage_drop_paths

TOKENS = 1  # global tokens of a stage


def outside(rows: int, columns: int, chunk: int, device: torch.device) -> Tensor:
    """Return True for keys beyond the map in each chunk's neighbourhood: ``(chunks, 1, (3 chunk)**2)``."""
    valid = []
    for size in (rows, columns):
        place = torch.arange(0, size, chunk, device=device)[:, None] + torch.arange(-chunk, 2 * chunk, device=device)
        valid.append((place >= 0) & (place < size))  # (chunks along this side, 3 chunk)
    return ~(valid[0][:, None, :, None] & valid[1][None, :, None, :]).flatten(2).flatten(0, 1)[:, None]


class SlidingChunkAttention(nn.Module):
    """Patches attend to the 3 x 3 chunks around them and to the global tokens; global tokens attend to everything.

    Args:
        dim, num_heads: channels and heads.
        chunk: side of a chunk in patches.
        updates_tokens: whether the global tokens are read afterwards; in the last block of a stage they are not.
    """

    def __init__(self, dim: int, num_heads: int, chunk: int, updates_tokens: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.chunk = chunk
        self.updates_tokens = updates_tokens
        self.scale = (dim // num_heads) ** -0.5
        self.query = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        side = 4 * chunk - 1  # a key is less than two chunks away, on either side
        self.local_bias = nn.Parameter(torch.zeros(side * side, num_heads))
        self.bias_to_tokens = nn.Parameter(torch.zeros(num_heads, 1, TOKENS))
        biases = [self.local_bias, self.bias_to_tokens]
        if updates_tokens:
            self.bias_from_tokens = nn.Parameter(torch.zeros(num_heads, TOKENS, 1))
            self.bias_among_tokens = nn.Parameter(torch.zeros(num_heads, TOKENS, TOKENS))
            biases += [self.bias_from_tokens, self.bias_among_tokens]
        for bias in biases:
            trunc_normal_(bias, std=0.02)

    def positions(self) -> Tensor:
        """Return the row of `local_bias` for each query of a chunk and key around it: ``(chunk**2, (3 chunk)**2)``."""
        chunk, device = self.chunk, self.local_bias.device
        offset = torch.arange(chunk, device=device)[:, None] - torch.arange(-chunk, 2 * chunk, device=device)
        offset = offset + 2 * chunk - 1  # (chunk, 3 chunk), from 0
        index = offset[:, None, :, None] * (4 * chunk - 1) + offset[None, :, None, :]
        return index.flatten(2).flatten(0, 1)

    def neighbourhoods(self, x: Tensor) -> Tensor:
        """Return each chunk's 3 x 3 chunks of a map ``(B, h, w, C)``: ``(B, heads, chunks, (3 chunk)**2, d)``."""
        chunk = self.chunk
        around = [chunk, chunk + -x.shape[2] % chunk, chunk, chunk + -x.shape[1] % chunk]
        x = F.pad(x, [0, 0, *around]).unfold(1, 3 * chunk, chunk).unfold(2, 3 * chunk, chunk)
        return rearrange(x, "b m n (heads d) y x -> b heads (m n) (y x) d", heads=self.num_heads)

    def local(self, q: Tensor, k: Tensor, v: Tensor, k_tokens: Tensor, v_tokens: Tensor) -> Tensor:
        """Return what patches read. q, k, v are maps ``(B, h, w, C)``; of the tokens ``(B, heads, T, d)``."""
        chunk, (rows, columns) = self.chunk, q.shape[1:3]
        q = F.pad(q, (0, 0, 0, -columns % chunk, 0, -rows % chunk))
        down, across = q.shape[1] // chunk, q.shape[2] // chunk
        q = rearrange(q, "b (m y) (n x) (heads d) -> b heads (m n) (y x) d", y=chunk, x=chunk, heads=self.num_heads)
        k, v = (
            torch.cat([tokens[:, :, None].expand(-1, -1, down * across, -1, -1), self.neighbourhoods(x)], dim=3)
            for tokens, x in ((k_tokens, k), (v_tokens, v))
        )  # (B, heads, chunks, T + (3 chunk)**2, d)
        index = self.positions()
        bias = self.local_bias[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)
        bias = torch.cat([self.bias_to_tokens.expand(-1, chunk**2, -1), bias], dim=2)[:, None]
        hidden = F.pad(outside(rows, columns, chunk, q.device), (TOKENS, 0))  # the tokens are seen by all
        logits = ((q * self.scale) @ k.transpose(-2, -1) + bias).masked_fill(hidden, float("-inf"))
        y = logits.softmax(dim=-1) @ v  # (B, heads, chunks, chunk**2, d)
        y = rearrange(y, "b heads (m n) (y x) d -> b (m y) (n x) (heads d)", m=down, y=chunk)
        return y[:, :rows, :columns]

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the update of the map ``(B, h, w, C)`` and of the tokens ``(B, T, C)``, None if nothing reads it."""
        size = x.shape[1:3]
        split = partial(rearrange, pattern="b n (heads d) -> b heads n d", heads=self.num_heads)
        k, v = self.kv(torch.cat([tokens, x.flatten(1, 2)], dim=1)).chunk(2, dim=-1)  # (B, T + h * w, C)
        k_map, v_map = (part[:, TOKENS:].unflatten(1, size) for part in (k, v))
        k, v = split(k), split(v)
        y = self.proj(self.local(self.query(x), k_map, v_map, k[:, :, :TOKENS], v[:, :, :TOKENS]))
        if not self.updates_tokens:
            return y, None
        bias = torch.cat([self.bias_among_tokens, self.bias_from_tokens.expand(-1, -1, size[0] * size[1])], dim=2)
        logits = (split(self.query(tokens)) * self.scale) @ k.transpose(-2, -1) + bias
        read = rearrange(logits.softmax(dim=-1) @ v, "b heads n d -> b n (heads d)")
        return y, self.proj(read)


class ViLBlock(nn.Module):
    """Attention and MLP on patches and, where they are read afterwards, global tokens."""

    def __init__(
        self, dim: int, num_heads: int, chunk: int, mlp_ratio: int, drop_path: float, updates_tokens: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SlidingChunkAttention(dim, num_heads, chunk, updates_tokens)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim * mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new map ``(B, h, w, C)`` and tokens ``(B, T, C)``."""
        update, update_tokens = self.attn(self.norm1(x), self.norm1(tokens))
        x = x + self.drop_path(update)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if update_tokens is not None:
            tokens = tokens + self.drop_path(update_tokens)
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return x, tokens


class ViLStage(nn.Module):
    """Patches, a new global token, blocks: ``(B, C_in, H, W)`` to ``(B, C, H / patch, W / patch)``."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch: int,
        num_heads: int,
        chunk: int,
        mlp_ratio: int,
        drop_paths: list[float],
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.global_tokens = nn.Parameter(torch.zeros(1, TOKENS, dim))
        trunc_normal_(self.global_tokens, std=0.02)
        self.blocks = nn.ModuleList(
            ViLBlock(dim, num_heads, chunk, mlp_ratio, drop_path, updates_tokens=i < len(drop_paths) - 1)
            for i, drop_path in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.proj(x).movedim(1, -1))  # (B, h, w, C)
        tokens = self.global_tokens.expand(x.shape[0], -1, -1)
        for block in self.blocks:
            x, tokens = block(x, tokens)
        return x.movedim(-1, 1)


def vil(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return ViL; its maps are not normalised."""
    dims, rates = config.embed_dims, stage_drop_paths(config.drop_path, config.depths)
    stages = (
        ViLStage(
            in_channels if i == 0 else dims[i - 1],
            dims[i],
            4 if i == 0 else 2,
            config.num_heads[i],
            config.window_size,
            config.mlp_ratios[i],
            rates[i],
        )
        for i in range(4)
    )
    return Backbone(Stages(stages), dims)

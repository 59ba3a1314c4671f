"""ViL: every patch attends to its neighbourhood and to a global token, which attends to all. Linear in the image.

Source: Zhang et al., "Multi-Scale Vision Longformer: A New Vision Transformer for High-Resolution Image Encoding" (ICCV
2021); microsoft/vision-longformer, src/models/msvit.py and src/models/layers/longformer2d.py. The form with relative
positions, one global token, weights shared between patches and token, and sliding chunks in all stages. (The source
has full attention in the last two for images of 224 pixels: the same but for the table of positions.) In training the
source may draw one neighbouring chunk at random to save time; here all are always seen.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.layers.windows import relative_position_index


class SlidingChunkAttention(nn.Module):
    """Patches attend to the 3 x 3 chunks around them and to the global token; the token attends to everything.

    Args:
        dim, num_heads: channels and heads.
        chunk: side of a chunk in patches.
        updates_token: whether the global token is read afterwards; in the last block of a stage it is not.
    """

    def __init__(self, dim: int, num_heads: int, chunk: int, updates_token: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.chunk = chunk
        self.updates_token = updates_token
        self.query = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        rows = (4 * chunk - 1) ** 2  # a key is less than two chunks away, on either side
        self.local_bias = nn.Parameter(trunc_normal_(torch.zeros(rows, num_heads), std=0.02))
        # of the logits from patches to the token, and from the token to patches and to itself
        self.bias_to_token = nn.Parameter(trunc_normal_(torch.zeros(num_heads, 1, 1), std=0.02))
        if updates_token:
            self.bias_from_token = nn.Parameter(trunc_normal_(torch.zeros(num_heads, 1, 1), std=0.02))
            self.bias_of_token = nn.Parameter(trunc_normal_(torch.zeros(num_heads, 1, 1), std=0.02))

    def neighbourhoods(self, x: Tensor) -> Tensor:
        """Return the 3 x 3 chunks around each chunk of a map ``(B, h, w, C)``: ``(B, chunks, (3 chunk)**2, C)``."""
        c = self.chunk
        x = F.pad(x, [0, 0, c, c + -x.shape[2] % c, c, c + -x.shape[1] % c]).unfold(1, 3 * c, c).unfold(2, 3 * c, c)
        return rearrange(x, "b m n c y x -> b (m n) (y x) c")

    def bias(self, x: Tensor) -> Tensor:
        """Return the bias ``(heads, chunks, chunk**2, 1 + (3 chunk)**2)``: of the token, of keys, -inf off the map."""
        c = self.chunk
        index = relative_position_index((3 * c, 3 * c), (2 * c, 2 * c), x.device)
        index = index.view(3 * c, 3 * c, -1)[c : 2 * c, c : 2 * c].flatten(0, 1)  # the middle chunk asks
        bias = self.local_bias[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)[:, None]
        off_map = self.neighbourhoods(torch.ones_like(x[:1, ..., :1]))[..., 0] == 0  # (1, chunks, (3 chunk)**2)
        bias = bias.masked_fill(off_map[:, :, None], float("-inf"))
        return torch.cat([self.bias_to_token[:, None].expand(*bias.shape[:3], 1), bias], dim=-1)

    def forward(self, x: Tensor, token: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the update of the map ``(B, h, w, C)`` and of the token ``(B, 1, C)``, None if nothing reads it."""
        (rows, columns), c, heads = x.shape[1:3], self.chunk, self.num_heads
        kv, kv_token = self.kv(x), self.kv(token)
        around = self.neighbourhoods(kv)
        around = torch.cat([kv_token[:, None].expand(-1, around.shape[1], -1, -1), around], dim=2)
        k, v = rearrange(around, "b chunks n (two heads d) -> two b heads chunks n d", two=2, heads=heads)
        q = F.pad(self.query(x), (0, 0, 0, -columns % c, 0, -rows % c))
        q = rearrange(q, "b (m y) (n x) (heads d) -> b heads (m n) (y x) d", y=c, x=c, heads=heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias(x))  # (B, heads, chunks, chunk**2, d)
        y = rearrange(y, "b heads (m n) (y x) d -> b (m y) (n x) (heads d)", m=-(-rows // c), y=c)
        y = self.proj(y[:, :rows, :columns])
        if not self.updates_token:
            return y, None
        everything = torch.cat([kv_token, kv.flatten(1, 2)], dim=1)  # (B, 1 + h * w, 2 C)
        k, v = rearrange(everything, "b n (two heads d) -> two b heads n d", two=2, heads=heads)
        q = rearrange(self.query(token), "b n (heads d) -> b heads n d", heads=heads)
        bias = [self.bias_of_token, self.bias_from_token.expand(-1, -1, rows * columns)]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=torch.cat(bias, dim=-1))
        return y, self.proj(rearrange(read, "b heads n d -> b n (heads d)"))


class ViLBlock(nn.Module):
    """Attention and MLP on patches and, where it is read afterwards, the global token."""

    def __init__(self, config: BackboneConfig, i: int, drop_path: float, updates_token: bool) -> None:
        super().__init__()
        dim = config.embed_dims[i]
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SlidingChunkAttention(dim, config.num_heads[i], config.window_size, updates_token)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim * config.mlp_ratios[i])
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new map ``(B, h, w, C)`` and token ``(B, 1, C)``."""
        update, token_update = self.attn(self.norm1(x), self.norm1(token))
        x = x + self.drop_path(update)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if token_update is not None:
            token = token + self.drop_path(token_update)
            token = token + self.drop_path(self.mlp(self.norm2(token)))
        return x, token


class ViLStage(nn.Module):
    """Patches, a new global token, blocks: ``(B, C_in, H, W)`` to ``(B, C, H / patch, W / patch)``."""

    def __init__(self, config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> None:
        super().__init__()
        dim, patch, last = config.embed_dims[i], 4 if i == 0 else 2, len(drop_paths) - 1
        self.proj = nn.Conv2d(in_channels, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.global_tokens = nn.Parameter(trunc_normal_(torch.zeros(1, 1, dim), std=0.02))
        self.blocks = nn.ModuleList(ViLBlock(config, i, rate, j < last) for j, rate in enumerate(drop_paths))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.proj(x).movedim(1, -1))  # (B, h, w, C)
        token = self.global_tokens.expand(len(x), -1, -1)
        for block in self.blocks:
            x, token = block(x, token)
        return x.movedim(-1, 1)

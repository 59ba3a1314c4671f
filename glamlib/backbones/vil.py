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
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.stages import ConvStage
from glamlib.layers.windows import relative_position_index


class SlidingChunkAttention(nn.Module):
    """Patches attend to the 3 x 3 chunks around them and to the global token; the token attends to everything.

    ``chunk`` is its side in patches. A stage's last block does not update the token: nothing reads it afterwards.
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

    def bias(self, size: tuple[int, int]) -> Tensor:
        """Return the bias ``(heads, chunks, chunk**2, 1 + (3 chunk)**2)``: of the token, of keys, -inf off the map."""
        c = self.chunk
        index = relative_position_index((3 * c, 3 * c), (2 * c, 2 * c), self.local_bias.device)
        index = index.view(3 * c, 3 * c, -1)[c : 2 * c, c : 2 * c].flatten(0, 1)  # the queries are the middle chunk's
        bias = self.local_bias[index].permute(2, 0, 1)[:, None]  # (heads, 1, chunk**2, (3 chunk)**2)
        off_map = self.neighbourhoods(bias.new_ones(1, *size, 1))[..., 0] == 0  # (1, chunks, (3 chunk)**2)
        bias = bias.masked_fill(off_map[:, :, None], float("-inf"))
        return torch.cat([self.bias_to_token[:, None].expand(*bias.shape[:3], 1), bias], dim=-1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the update of token and map, ``(B, 1 + h * w, C)``; ``size`` is (h, w). An unread token's is 0."""
        (rows, columns), c, heads = size, self.chunk, self.num_heads
        q, kv = self.query(x), self.kv(x)  # (B, 1 + h * w, C) and (B, 1 + h * w, 2 C)
        around = self.neighbourhoods(kv[:, 1:].unflatten(1, size))
        around = torch.cat([kv[:, None, :1].expand(-1, around.shape[1], -1, -1), around], dim=2)
        k, v = rearrange(around, "b chunks n (two heads d) -> two b heads chunks n d", two=2, heads=heads)
        y = F.pad(q[:, 1:].unflatten(1, size), (0, 0, 0, -columns % c, 0, -rows % c))
        y = rearrange(y, "b (m y) (n x) (heads d) -> b heads (m n) (y x) d", y=c, x=c, heads=heads)
        y = F.scaled_dot_product_attention(y, k, v, attn_mask=self.bias(size))  # (B, heads, chunks, chunk**2, d)
        y = rearrange(y, "b heads (m n) (y x) d -> b (m y) (n x) (heads d)", m=-(-rows // c), y=c)
        y = y[:, :rows, :columns].flatten(1, 2)  # (B, h * w, C)
        if not self.updates_token:
            return F.pad(self.proj(y), (0, 0, 1, 0))
        k, v = rearrange(kv, "b n (two heads d) -> two b heads n d", two=2, heads=heads)
        q = rearrange(q[:, :1], "b n (heads d) -> b heads n d", heads=heads)
        bias = [self.bias_of_token, self.bias_from_token.expand(-1, -1, rows * columns)]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=torch.cat(bias, dim=-1))
        return self.proj(torch.cat([rearrange(read, "b heads n d -> b n (heads d)"), y], dim=1))


def vil_stage(config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> ConvStage:
    """Return ViL's stage i: patches, a new global token, blocks."""
    dim, heads, patch, depth = config.embed_dims[i], config.num_heads[i], 4 if i == 0 else 2, len(drop_paths)
    attentions = [SlidingChunkAttention(dim, heads, config.window_size, j < depth - 1) for j in range(depth)]
    proj = nn.Conv2d(in_channels, dim, patch, stride=patch)
    return ConvStage(config, i, proj, attentions, drop_paths, has_token=True, patch_eps=1e-6)

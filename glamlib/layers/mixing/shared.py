"""One shared set of global tokens for the whole image (ViL)."""

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.attention import attend

from .base import PatchMixer


class SharedTokens(PatchMixer):
    """A few learned tokens attend to all patches and to themselves; then all patches attend to the tokens.

    Zhang et al., "Multi-scale Vision Longformer" (ICCV 2021), section 3.2: global tokens see the whole map and are seen
    from everywhere. Local attention is the block's W-MSA, apart from this. ViL's tokens live on through the blocks;
    here each block starts its own, so that nothing but the map goes from block to block.
    Linear in the number of patches.
    """

    num_tokens = 8

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__(dim, num_heads, window_size)
        self.tokens = nn.Parameter(torch.zeros(self.num_tokens, dim))
        trunc_normal_(self.tokens)  # of deviation 1, like the patches behind their norm

    def forward(
        self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the update of the patches and, if asked, their weights ``(B, heads, P, tokens)``."""
        patches = self.add_position(tokens, grid).flatten(1, 2)  # (B, P, C)
        shared = self.tokens.to(patches.dtype).expand(len(patches), -1, -1)  # (B, T, C)
        k, v = self.keys_values(torch.cat([shared, patches], dim=1))  # each (B, heads, T + P, d)
        shared = shared + self.from_heads(attend(self.queries(shared), k, v)[0])
        y, weights = attend(self.queries(patches), *self.keys_values(shared), return_attention=return_attention)
        return self.from_heads(y)[:, :, None], weights

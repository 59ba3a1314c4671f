"""Spatially reduced keys (PVT)."""

from math import prod

from torch import Tensor, nn

from glamlib.layers.attention import attend
from glamlib.layers.windows import WindowLayout, to_windows

from .base import PatchMixer


class ReducedAttention(PatchMixer):
    """Every patch attends to one key a window: a strided convolution of the window's patches, and a norm.

    Wang et al., "Pyramid Vision Transformer" (ICCV 2021), eq. 1 to 5 (spatial-reduction attention), with the window as
    its reduction R in every stage, where PVT has 8, 4, 2, 1. The convolution is written as a linear layer on the
    patches of a window in a row. A window at the border that the map does not fill goes on with zeros, so there is no
    key of nothing. Quadratic in the number of patches, divided by the patches of a window.
    """

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__(dim, num_heads, window_size)
        self.reduce = nn.Linear(prod(window_size) * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the update of the patches and, if asked, their weights ``(B, heads, P, nW)``."""
        patches = self.add_position(tokens, grid)  # (B, P, 1, C)
        # Whole windows also where the map is smaller than one: the convolution has one size
        layout = WindowLayout(grid, self.window_size, (0,) * len(grid))
        windows = to_windows(patches.view(len(patches), *grid, -1), layout)  # (B, nW, w * w, C)
        keys = self.norm(self.reduce(windows.flatten(2)))  # (B, nW, C)
        q = self.queries(patches.flatten(1, 2))  # (B, heads, P, d)
        y, weights = attend(q, *self.keys_values(keys), return_attention=return_attention)
        return self.from_heads(y)[:, :, None], weights

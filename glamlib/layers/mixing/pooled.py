"""Pooled keys: tokens of neighbouring windows are read as one."""

from torch import Tensor
from torch.nn import functional as F

from glamlib.layers.attention import attend

from .base import TokenMixer

_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class PooledAttention(TokenMixer):
    """G-MSA whose keys and values are means over neighbouring windows, on a grid of at most ``cells`` a dimension.

    The t-th token of a cell is the mean of the t-th tokens of its windows. A map of fewer windows is not pooled: there
    it is G-MSA. After the linear attention of PVT v2 (Wang et al., "PVT v2", Computational Visual Media 2022, section
    3.2), which pools patches to a fixed grid. Linear in the number of windows.
    """

    cells = 4

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        if max(grid) <= self.cells:
            return attend(q, k, v)[0]
        return attend(q, self.pool(k, grid), self.pool(v, grid))[0]

    def pool(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the means ``(B, heads, cells * T, d)`` of ``(B, heads, nW * T, d)``."""
        batch, heads, _, channels = x.shape
        cells = tuple(min(g, self.cells) for g in grid)
        x = x.reshape(batch * heads, *grid, -1).movedim(-1, 1)  # (B * heads, T * d, *grid)
        x = _POOL[len(grid)](x, cells).movedim(1, -1)  # (B * heads, *cells, T * d)
        return x.reshape(batch, heads, -1, channels)

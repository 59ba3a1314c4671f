"""Low rank: keys and values are projected to a few (Linformer)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glamlib.layers.attention import attend, sine_position_code

from .base import TokenMixer


class LowRankAttention(TokenMixer):
    """Attention to projected keys and values: softmax(q (E k)^T / sqrt(d)) E v, with E of ``rank`` rows.

    Wang et al., "Linformer: self-attention with linear complexity" (2020), eq. 7, with one E for keys, values and heads
    (its section 4, "key-value sharing"). Linformer learns E as a matrix of one column an element, which fixes their
    number. Here a row of E is the softmax, over windows, of a learned linear function of their place's code, and so
    defined for any number of windows; the t-th tokens of all windows are projected alike, to ``rank`` each.
    Linear in the number of windows.
    """

    rank = 16

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.rows = nn.Parameter(torch.zeros(self.rank, dim))
        # A code's squares sum to dim / 2: logits of deviation 8, so that each row starts at a few windows of its own.
        # Rows that start as means of all windows learn slower on the cue scenes.
        nn.init.normal_(self.rows, std=(128 / dim) ** 0.5)

    def projection(self, grid: tuple[int, ...]) -> Tensor:
        """Return E, ``(rank, nW)``; each row sums to 1."""
        code = sine_position_code(grid, self.rows.shape[1], self.rows.device, self.rows.dtype)
        return F.linear(self.rows, code).softmax(dim=-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        rows = self.projection(grid).to(k.dtype)
        return attend(q, self.project(k, rows), self.project(v, rows))[0]

    def project(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return ``(B, heads, rank * T, d)`` of ``(B, heads, nW * T, d)``."""
        batch, heads, _, channels = x.shape
        x = F.linear(x.reshape(batch, heads, rows.shape[1], -1).transpose(2, 3), rows)  # (B, heads, T * d, rank)
        return x.transpose(2, 3).reshape(batch, heads, -1, channels)

"""What the mixers share: those that act on tokens, and those that act on patches."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from glamlib.layers.attention import GlobalAttention


class TokenMixer(GlobalAttention):
    """Exchange between global tokens that never builds the matrix of all pairs of them."""

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return what each query reads, ``(B, heads, nW * T, d')``, linear in ``v``, ``(B, heads, nW * T, d')``.

        q and k are ``(B, heads, nW * T, d)``, window by window.
        """

    def exchange(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...], return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        if not return_attention:
            return self.mix(q, k, v, grid), None
        # As `mix` is linear in v, the values of the identity are the weights of any values.
        identity = torch.eye(v.shape[2], dtype=v.dtype, device=v.device).expand(*v.shape[:3], -1)
        weights = self.mix(q, k, identity, grid)
        return weights @ v, weights


class PatchMixer(GlobalAttention):
    """Exchange between patches: each is the one token of a window of one patch, and the map is the grid.

    Args:
        dim: channels C.
        num_heads: heads.
        window_size: patches along each dimension of a window of the block.
    """

    acts_on = "patches"

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__(dim, num_heads)
        self.window_size = window_size

    def queries(self, x: Tensor) -> Tensor:
        """Return the queries ``(B, heads, N, d)`` of ``(B, N, C)``."""
        return self._heads(x, slice(0, x.shape[-1]))[0]

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and the values, each ``(B, heads, N, d)``, of ``(B, N, C)``."""
        k, v = self._heads(x, slice(x.shape[-1], None))
        return k, v

    def _heads(self, x: Tensor, rows: slice) -> Tensor:
        """Return some rows of the projection of ``(B, N, C)``, heads apart: ``(rows / C, B, heads, N, d)``."""
        y = F.linear(x, self.qkv.weight[rows], self.qkv.bias[rows])
        return y.view(*x.shape[:2], -1, self.num_heads, x.shape[-1] // self.num_heads).permute(2, 0, 3, 1, 4)

    def from_heads(self, y: Tensor) -> Tensor:
        """Return the output ``(B, N, C)`` of heads ``(B, heads, N, d)``: joined and projected."""
        return self.proj(y.transpose(1, 2).flatten(2))

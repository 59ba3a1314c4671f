"""Exchanges between the patches of all windows, in place of tokens and G-MSA: the neighbours of GLAM as mixers."""

from math import prod

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.attention import GlobalAttention, attend
from glamlib.layers.windows import WindowLayout, cached, from_windows, to_windows


class PatchMixer(GlobalAttention):
    """Exchange between patches: each is the one token of a window of one patch, and the map is the grid."""

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


class FullAttention(PatchMixer):
    """Every patch attends to every patch of the map (Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. 1).

    Quadratic in the number of patches.
    """


class ReducedAttention(PatchMixer):
    """Every patch attends to one key a window: a strided convolution of the window's patches, and a norm.

    Wang et al., "Pyramid Vision Transformer" (ICCV 2021), eq. 1 to 5 (spatial-reduction attention), with the window as
    its reduction R in every stage, where PVT has 8, 4, 2, 1. The convolution is a linear layer on the patches of a
    window in a row; a window that the map does not fill is padded with zeros.
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


class SharedTokens(PatchMixer):
    """A few learned tokens attend to all patches and to themselves; then all patches attend to the tokens.

    Zhang et al., "Multi-scale Vision Longformer" (ICCV 2021), section 3.2. Local attention is the block's W-MSA. ViL's
    tokens live on through the blocks; here each block starts its own. Linear in the number of patches.
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


class DilatedLayout:
    """Windows of patches that lie ``step`` apart on a map, all sizes in patches, one entry a dimension.

    The step is at most the window's side w, so that a dilated window has a patch in every whole window that it spans.
    Dilated windows side by side divide the map evenly.
    """

    def __init__(self, size: tuple[int, ...], window_size: tuple[int, ...]) -> None:
        sides = [-(-s // w**2) for s, w in zip(size, window_size, strict=True)]  # dilated windows side by side
        self.step = tuple(-(-s // (n * w)) for s, n, w in zip(size, sides, window_size, strict=True))
        self.cells = WindowLayout(size, self.step, (0,) * len(size))
        self.windows = WindowLayout.fit(self.cells.grid, window_size, shifted=False)

    def split(self, x: Tensor) -> Tensor:
        """Cut a map ``(B, *size, C)`` into dilated windows ``(B, D, nW, P, C)``: D starts, nW windows of each."""
        cells = to_windows(x, self.cells).transpose(1, 2)  # (B, D, cells, C)
        windows = to_windows(cells.reshape(-1, *self.cells.grid, x.shape[-1]), self.windows)  # (B * D, nW, P, C)
        return windows.view(len(x), -1, *windows.shape[1:])

    def merge(self, windows: Tensor) -> Tensor:
        """Undo `split`: ``(B, D, nW, P, C)`` to ``(B, *size, C)``."""
        batch, starts, *_, channels = windows.shape
        cells = from_windows(windows.flatten(0, 1), self.windows)  # (B * D, *cells, C)
        return from_windows(cells.reshape(batch, starts, -1, channels).transpose(1, 2), self.cells)


@cached
def padding_mask(size: tuple[int, ...], window_size: tuple[int, ...], device: torch.device) -> Tensor:
    """Return what is added to the logits of dilated windows, ``(D * nW, 1, P)``: 0, or -1e4 off the map.

    The value is finite because a dilated window may lie off the map as a whole; its weight is exactly 0 elsewhere.
    """
    on_map = DilatedLayout(size, window_size).split(torch.ones(1, *size, 1, device=device))
    return ((1 - on_map) * -1e4).flatten(0, 2).transpose(1, 2)


class SparseAttention(PatchMixer):
    """Attention inside dilated windows: as many patches as in a window, one from each of the windows around.

    The strided half of Child et al., "Generating long sequences with sparse Transformers" (2019), section 4.3, in 2D as
    in Hassani and Shi, "Dilated neighborhood attention transformer" (2022); on a map of at most w * w patches a side it
    is the grid attention of MaxViT (Tu et al., ECCV 2022). Linear in the number of patches.
    """

    def forward(
        self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the update of the patches and, if asked, their weights ``(B, D, nW, heads, P, P)``."""
        batch, channels = len(tokens), tokens.shape[-1]
        layout = DilatedLayout(grid, self.window_size)
        # Padded after the projection: patches off the map hold no bias
        qkv = self.qkv(self.add_position(tokens, grid)).view(batch, *grid, -1)
        windows = layout.split(qkv)  # (B, D, nW, P, 3 C)
        starts, count, length = windows.shape[1:4]
        # Four dimensions for the fused kernels, as in W-MSA
        windows = windows.reshape(batch, starts * count, length, 3, self.num_heads, -1)
        q, k, v = windows.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # each (B, D * nW * heads, P, d)
        mask = padding_mask(grid, self.window_size, q.device).to(q.dtype)
        y, weights = attend(q, k, v, mask.repeat_interleave(self.num_heads, dim=0), return_attention)
        y = y.view(batch, starts, count, self.num_heads, length, -1).transpose(3, 4).flatten(4)  # (B, D, nW, P, C)
        if weights is not None:
            weights = weights.view(batch, starts, count, self.num_heads, length, length)
        return self.proj(layout.merge(y)).view(batch, -1, 1, channels), weights

"""Exchanges between the patches of all windows, in place of tokens and G-MSA: the neighbours of GLAM as mixers."""

from math import prod

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.attention import Attended, GlobalAttention, attend
from glamlib.layers.windows import WindowLayout, cached, from_windows, to_windows


class PatchMixer(GlobalAttention):
    """Exchange between patches: each is the one token of a window of one patch, and the map is the grid.

    ``window_size`` is that of the block: patches along each dimension.
    """

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__(dim, num_heads)
        self.window_size = window_size

    def queries(self, x: Tensor) -> Tensor:
        """Return the queries ``(B, heads, N, d)`` of ``(B, N, C)``."""
        c = x.shape[-1]
        q = F.linear(x, self.qkv.weight[:c], self.qkv.bias[:c])
        return rearrange(q, "b n (h d) -> b h n d", h=self.num_heads)

    def keys_values(self, x: Tensor) -> Tensor:
        """Return the keys and values ``(2, B, heads, N, d)`` of ``(B, N, C)``."""
        c = x.shape[-1]
        kv = F.linear(x, self.qkv.weight[c:], self.qkv.bias[c:])
        return rearrange(kv, "b n (two h d) -> two b h n d", two=2, h=self.num_heads)

    def from_heads(self, y: Tensor) -> Tensor:
        """Return the output ``(B, N, C)`` of heads ``(B, heads, N, d)``: joined and projected."""
        return self.proj(rearrange(y, "b h n d -> b n (h d)"))


class FullAttention(PatchMixer):
    """Every patch attends to every patch of the map (Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. 1).

    Quadratic in the number of patches.
    """


class ReducedAttention(PatchMixer):
    """Every patch attends to one key a window: a strided convolution of the window's patches, and a norm.

    Wang et al., "Pyramid Vision Transformer" (ICCV 2021), eq. 1 to 5 (spatial-reduction attention). The reduction R is
    the window in every stage, where PVT has 8, 4, 2, 1. The convolution is written as a linear layer on all patches of
    a window; at the border of the map it reads zeros. Quadratic in the number of patches, divided by those of a window.
    """

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__(dim, num_heads, window_size)
        self.reduce = nn.Linear(prod(window_size) * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False) -> Attended:
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

    Zhang et al., "Multi-scale Vision Longformer" (ICCV 2021), section 3.2; its local attention is the block's W-MSA.
    ViL's tokens pass from block to block. Here each block starts its own, so that only the map passes on.
    Linear in the number of patches.
    """

    num_tokens = 8

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__(dim, num_heads, window_size)
        self.tokens = nn.Parameter(torch.zeros(self.num_tokens, dim))
        trunc_normal_(self.tokens)  # of deviation 1, like the patches behind their norm

    def forward(self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False) -> Attended:
        """Return the update of the patches and, if asked, their weights ``(B, heads, P, tokens)``."""
        patches = self.add_position(tokens, grid).flatten(1, 2)  # (B, P, C)
        shared = self.tokens.to(patches.dtype).expand(len(patches), -1, -1)  # (B, T, C)
        k, v = self.keys_values(torch.cat([shared, patches], dim=1))  # each (B, heads, T + P, d)
        shared = shared + self.from_heads(attend(self.queries(shared), k, v)[0])
        y, weights = attend(self.queries(patches), *self.keys_values(shared), return_attention=return_attention)
        return self.from_heads(y)[:, :, None], weights


class DilatedLayout:
    """Windows of ``window_size`` patches that lie ``step`` apart on a map of ``size`` patches, one entry a dimension.

    The step is at most the window's side w, so that a dilated window has a patch in every window that it spans; on a
    map smaller than w * w it is smaller. Dilated windows side by side divide the map evenly.
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

    The strided half of Child et al., "Generating long sequences with sparse Transformers" (2019), section 4.3, in
    windows of a map, as in Hassani and Shi, "Dilated neighborhood attention transformer" (2022). On a map of at most
    w * w patches a side it is the grid attention of MaxViT (Tu et al., ECCV 2022); on a larger one a patch does not
    reach beyond w * w patches a side. Linear in the number of patches.
    """

    def forward(self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False) -> Attended:
        """Return the update of the patches and, if asked, their weights ``(B, D, nW, heads, P, P)``."""
        layout = DilatedLayout(grid, self.window_size)
        # Padded after the projection: patches off the map hold no bias
        qkv = self.qkv(self.add_position(tokens, grid)).view(len(tokens), *grid, -1)
        windows = layout.split(qkv)  # (B, D, nW, P, 3 C)
        # Four dimensions for the fused kernels, as in W-MSA: each (B, D * nW * heads, P, d)
        q, k, v = rearrange(windows, "b s w n (three h d) -> three b (s w h) n d", three=3, h=self.num_heads)
        mask = padding_mask(grid, self.window_size, q.device).to(q.dtype)
        y, weights = attend(q, k, v, mask.repeat_interleave(self.num_heads, dim=0), return_attention)
        y = rearrange(y, "b (s w h) n d -> b s w n (h d)", s=windows.shape[1], h=self.num_heads)  # (B, D, nW, P, C)
        if weights is not None:
            weights = rearrange(weights, "b (s w h) n m -> b s w h n m", s=windows.shape[1], h=self.num_heads)
        return self.proj(layout.merge(y)).view(tokens.shape), weights

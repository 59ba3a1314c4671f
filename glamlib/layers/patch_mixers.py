"""Exchanges between the patches of all windows, in place of tokens and G-MSA: the neighbours of GLAM as mixers."""

from math import prod
from operator import mul

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

    def read(self, x: Tensor, context: Tensor, return_attention: bool = False) -> Attended:
        """Return what ``x`` ``(B, N, C)`` reads in ``context`` ``(B, M, C)``, and the weights ``(B, heads, N, M)``."""
        sizes = [x.shape[-1], 2 * x.shape[-1]]
        (to_q, to_kv), (bias_q, bias_kv) = self.qkv.weight.split(sizes), self.qkv.bias.split(sizes)
        q = rearrange(F.linear(x, to_q, bias_q), "b n (h d) -> b h n d", h=self.num_heads)
        k, v = rearrange(F.linear(context, to_kv, bias_kv), "b m (two h d) -> two b h m d", two=2, h=self.num_heads)
        y, weights = attend(q, k, v, return_attention=return_attention)
        return self.proj(rearrange(y, "b h n d -> b n (h d)")), weights


class FullAttention(PatchMixer):
    """Every patch attends to every patch (Vaswani et al., NeurIPS 2017, eq. 1). Quadratic in the number of patches."""


class ReducedAttention(PatchMixer):
    """Every patch attends to one key per window: a strided convolution of the window's patches, and a norm.

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
        update, weights = self.read(patches.flatten(1, 2), keys, return_attention)
        return update[:, :, None], weights


class SharedTokens(PatchMixer):
    """A few learned tokens attend to all patches and to themselves; then all patches attend to the tokens.

    Zhang et al., "Multi-scale Vision Longformer" (ICCV 2021), section 3.2; its local attention is the block's W-MSA.
    ViL's tokens pass from block to block; here each block starts its own. Linear in the number of patches.
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
        shared = shared + self.read(shared, torch.cat([shared, patches], dim=1))[0]
        update, weights = self.read(patches, shared, return_attention)
        return update[:, :, None], weights


# A block of dilated windows: each starts at its own (k, i, j); its patches (d, h, w) lie a step apart
_BLOCKS = {2: "b n (h i w j) c", 3: "b n (d k h i w j) c"}
_DILATED = {2: "b (n i j) (h w) c", 3: "b (n k i j) (d h w) c"}


class DilatedLayout:
    """Windows of ``window_size`` patches that lie a step apart on a map of ``size`` patches, one entry a dimension.

    The step is at most the window's side w, so that a dilated window has a patch in every window that it spans; on a
    map smaller than w * w it is smaller. Dilated windows side by side divide the map evenly.
    """

    def __init__(self, size: tuple[int, ...], window_size: tuple[int, ...]) -> None:
        sides = [-(-s // w**2) for s, w in zip(size, window_size, strict=True)]  # dilated windows side by side
        step = [-(-s // (n * w)) for s, n, w in zip(size, sides, window_size, strict=True)]
        window = [min(w, -(-s // d)) for s, w, d in zip(size, window_size, step, strict=True)]
        self.blocks = WindowLayout(size, tuple(map(mul, window, step)), (0,) * len(size))
        self.whole, self.dilated = _BLOCKS[len(size)], _DILATED[len(size)]
        self.sides = dict(zip("whd", window[::-1], strict=False)) | dict(zip("jik", step[::-1], strict=False))

    def split(self, x: Tensor) -> Tensor:
        """Cut a map ``(B, *size, C)`` into dilated windows ``(B, D, P, C)``."""
        return rearrange(to_windows(x, self.blocks), f"{self.whole} -> {self.dilated}", **self.sides)

    def merge(self, windows: Tensor) -> Tensor:
        """Undo `split`: ``(B, D, P, C)`` to ``(B, *size, C)``."""
        return from_windows(rearrange(windows, f"{self.dilated} -> {self.whole}", **self.sides), self.blocks)


@cached
def padding_mask(size: tuple[int, ...], window_size: tuple[int, ...], device: torch.device) -> Tensor:
    """Return what is added to the logits of dilated windows, ``(D, 1, P)``: 0, or -1e4 off the map.

    The value is finite because a dilated window may lie off the map as a whole; its weight is exactly 0 elsewhere.
    """
    on_map = DilatedLayout(size, window_size).split(torch.ones(1, *size, 1, device=device))
    return ((1 - on_map) * -1e4)[0].transpose(1, 2)


class SparseAttention(PatchMixer):
    """Attention inside dilated windows: as many patches as in a window, one from each of the windows around.

    The strided half of Child et al., "Generating long sequences with sparse Transformers" (2019), section 4.3, in
    windows of a map, as in Hassani and Shi, "Dilated neighborhood attention transformer" (2022). On a map of at most
    w * w patches a side it is the grid attention of MaxViT (Tu et al., ECCV 2022); on a larger one a patch does not
    reach beyond w * w patches a side. Linear in the number of patches.
    """

    def forward(self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False) -> Attended:
        """Return the update of the patches and, if asked, their weights ``(B, D, heads, P, P)``."""
        layout = DilatedLayout(grid, self.window_size)
        # Padded after the projection: patches off the map hold no bias
        qkv = self.qkv(self.add_position(tokens, grid)).view(len(tokens), *grid, -1)
        # Four dimensions for the fused kernels, as in W-MSA: each (B, D * heads, P, d)
        q, k, v = rearrange(layout.split(qkv), "b w n (three h d) -> three b (w h) n d", three=3, h=self.num_heads)
        mask = padding_mask(grid, self.window_size, q.device).to(q.dtype)
        y, weights = attend(q, k, v, mask.repeat_interleave(self.num_heads, dim=0), return_attention)
        y = rearrange(y, "b (w h) n d -> b w n (h d)", h=self.num_heads)  # (B, D, P, C)
        if weights is not None:
            weights = rearrange(weights, "b (w h) n m -> b w h n m", h=self.num_heads)
        return self.proj(layout.merge(y)).view(tokens.shape), weights

"""Sparse attention: windows of patches that lie apart (dilated windows)."""

import torch
from torch import Tensor

from glamlib.layers.attention import attend
from glamlib.layers.windows import MASKED, WindowLayout, from_windows, kept, to_windows

from .base import PatchMixer


class DilatedLayout:
    """Windows of patches that lie ``step`` apart on a map, all sizes in patches, one entry a dimension.

    The step is at most the window's side w, so that a patch of a dilated window lies in every whole window that it
    spans; on a map smaller than w * w it is smaller. Where several dilated windows lie side by side they share the map
    out evenly.

    Args:
        size: of the map.
        window_size: patches along each dimension of a dilated window.
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


@kept
def padding_mask(size: tuple[int, ...], window_size: tuple[int, ...], device: torch.device) -> Tensor:
    """Return what is added to the logits of dilated windows, ``(D * nW, 1, P)``: 0, or `MASKED` off the map."""
    on_map = DilatedLayout(size, window_size).split(torch.ones(1, *size, 1, device=device))
    return ((1 - on_map) * MASKED).flatten(0, 2).transpose(1, 2)


class SparseAttention(PatchMixer):
    """Attention inside dilated windows: as many patches as in a window, one from each of the windows around.

    The strided half of Child et al., "Generating long sequences with sparse Transformers" (2019), section 4.3, on maps
    and in windows, as in Hassani and Shi, "Dilated neighborhood attention transformer" (2022); on a map of at most
    w * w patches a side it is the grid attention of MaxViT (Tu et al., ECCV 2022). A patch reads w * w patches a side
    and none beyond. Linear in the number of patches.
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

"""Windows of an N-dimensional map: layout, partition, reverse, shift mask, relative position index.

One code for 2D and 3D. Maps are channels-last, ``(B, *size, C)``; windows are ``(B, nW, P, C)``: ``nW`` windows of
``P`` patches, both in row-major order. Source: Liu et al., "Swin Transformer" (ICCV 2021), section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

# Swin has -100 here. exp(-100) is a denormal number, which slows down every matrix product that meets it. No row of a
# softmax is masked as a whole, because every patch sees itself.
MASKED = float("-inf")


def cached(make: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Cache what ``make`` returns for its last 32 arguments: constants of a layout that all blocks share.

    They are made outside inference mode, so that training can use them too. Tensors of a compiler or an export are not
    real ones and are not cached.
    """
    cache = lru_cache(maxsize=32)(torch.inference_mode(False)(make))

    @wraps(make)
    def get(*arguments: object) -> Tensor | None:
        return make(*arguments) if torch.compiler.is_compiling() else cache(*arguments)

    return get


@dataclass(frozen=True)
class WindowLayout:
    """How windows lie on one map: all sizes in patches, one entry a dimension."""

    size: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]

    @classmethod
    def fit(cls, size: tuple[int, ...], window_size: tuple[int, ...], shifted: bool) -> "WindowLayout":
        """Return the layout of windows of ``window_size`` on a map of ``size``, shifted by half a window if asked.

        Where the map is no larger than a window, the window is the map and the shift is 0, per dimension (as in Swin).
        """
        if len(size) != len(window_size):
            raise ValueError(f"a map of {len(size)} dimensions {size} does not fit windows of {window_size}")
        window = tuple(min(s, w) for s, w in zip(size, window_size, strict=True))
        shift = tuple(w // 2 if shifted and s > w else 0 for s, w in zip(size, window, strict=True))
        return cls(size, window, shift)

    @property
    def grid(self) -> tuple[int, ...]:
        """Windows along each dimension."""
        return tuple(-(-s // w) for s, w in zip(self.size, self.window, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """Size of the map padded to whole windows."""
        return tuple(g * w for g, w in zip(self.grid, self.window, strict=True))

    @property
    def num_windows(self) -> int:
        return prod(self.grid)

    @property
    def window_area(self) -> int:
        """Patches in a window."""
        return prod(self.window)


def window_partition(x: Tensor, window: tuple[int, ...]) -> Tensor:
    """Cut a map ``(B, *size, C)`` into windows ``(B, nW, P, C)``; every size must be a multiple of its window's."""
    batch, *size, channels = x.shape
    n = len(window)
    grid = [s // w for s, w in zip(size, window, strict=True)]
    # (B, g1, w1, g2, w2, ..., C) -> (B, g1, g2, ..., w1, w2, ..., C)
    x = x.reshape(batch, *(length for pair in zip(grid, window, strict=True) for length in pair), channels)
    x = x.permute(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.reshape(batch, prod(grid), prod(window), channels)


def window_reverse(windows: Tensor, layout: WindowLayout) -> Tensor:
    """Put windows ``(B, nW, P, C)`` back into a padded map ``(B, *layout.padded, C)``."""
    batch, _, _, channels = windows.shape
    n = len(layout.window)
    # (B, g1, g2, ..., w1, w2, ..., C) -> (B, g1, w1, g2, w2, ..., C)
    x = windows.reshape(batch, *layout.grid, *layout.window, channels)
    x = x.permute(0, *(axis for i in range(n) for axis in (1 + i, 1 + n + i)), 2 * n + 1)
    return x.reshape(batch, *layout.padded, channels)


def to_windows(x: Tensor, layout: WindowLayout) -> Tensor:
    """Pad a map ``(B, *layout.size, C)`` with zeros to whole windows, shift it, and cut it: ``(B, nW, P, C)``."""
    if layout.padded != layout.size:
        # F.pad counts dimensions from the last one, which is the channels
        widths = [w for p, s in zip(layout.padded[::-1], layout.size[::-1], strict=True) for w in (0, p - s)]
        x = F.pad(x, (0, 0, *widths))
    if any(layout.shift):
        x = torch.roll(x, tuple(-s for s in layout.shift), dims=tuple(range(1, x.ndim - 1)))
    return window_partition(x, layout.window)


def from_windows(windows: Tensor, layout: WindowLayout) -> Tensor:
    """Undo `to_windows`: ``(B, nW, P, C)`` to ``(B, *layout.size, C)``."""
    x = window_reverse(windows, layout)
    if any(layout.shift):
        x = torch.roll(x, layout.shift, dims=tuple(range(1, x.ndim - 1)))
    return x[(slice(None), *(slice(0, s) for s in layout.size))]


@cached
def shift_mask(layout: WindowLayout, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the logits of shifted windows, ``(nW, P, P)``: 0 or `MASKED`; None without a shift.

    A shifted window at the border holds patches that were wrapped around from the opposite side. Patches that are not
    neighbours in the map must not attend to each other (Swin, figure 4).
    """
    if not any(layout.shift):
        return None
    region = torch.zeros(layout.padded, device=device)
    slices = [
        (slice(0, -w), slice(-w, -s), slice(-s, None)) if s else (slice(None),)
        for w, s in zip(layout.window, layout.shift, strict=True)
    ]
    for label, place in enumerate(product(*slices)):
        region[place] = label
    region = window_partition(region[None, ..., None], layout.window)[0, :, :, 0]  # (nW, P)
    apart = region[:, :, None] != region[:, None, :]  # (nW, P, P)
    return torch.zeros(apart.shape, device=device, dtype=dtype).masked_fill_(apart, MASKED)


@cached
def relative_position_index(window: tuple[int, ...], table_window: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the row of the bias table for each pair of patches of a window, ``(P, P)`` integers.

    The table has ``prod(2 * table_window - 1)`` rows, one for each offset query - key, row-major. ``window`` may be
    smaller than ``table_window`` (a window clipped to a small map): its offsets are among the table's.
    """
    axes = [torch.arange(w, device=device) for w in window]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (n, P)
    offsets = coordinates[:, :, None] - coordinates[:, None, :]  # (n, P, P)
    index = torch.zeros_like(offsets[0])
    for offset, extent in zip(offsets, table_window, strict=True):
        index = index * (2 * extent - 1) + offset + extent - 1
    return index

"""Windows of a map: layout, cutting and joining, shift mask, relative position index.

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
from einops import rearrange
from torch import Tensor

# Swin has -100 here. exp(-100) is a denormal number, which slows down every matrix product that meets it. No row of a
# softmax is masked as a whole, because every patch sees itself.
MASKED = float("-inf")


def cached(make: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Cache what ``make`` returns for its last 32 arguments: constants of a layout that all blocks share.

    They are made outside inference mode, so that training can use them too; those of a compiler or export are not kept.
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


# Axes of a map and of its windows: windows at z, y, x on the grid, patches at d, h, w in each
_MAP = {2: "b (y h) (x w) c", 3: "b (z d) (y h) (x w) c"}
_WINDOWS = {2: "b (y x) (h w) c", 3: "b (z y x) (d h w) c"}


def _sides(names: str, lengths: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(names[-len(lengths) :], lengths, strict=True))


def window_partition(x: Tensor, window: tuple[int, ...]) -> Tensor:
    """Cut a map ``(B, *size, C)`` into windows ``(B, nW, P, C)``; every size must be a multiple of its window's."""
    n = len(window)
    return rearrange(x, f"{_MAP[n]} -> {_WINDOWS[n]}", **_sides("dhw", window))


def padding_to(size: tuple[int, ...], multiples: tuple[int, ...]) -> list[int]:
    """Return `F.pad`'s widths (last dimension first) that zero-pad the ends of a map to multiples."""
    return [width for s, m in zip(size[::-1], multiples[::-1], strict=True) for width in (0, -s % m)]


def to_windows(x: Tensor, layout: WindowLayout) -> Tensor:
    """Pad a map ``(B, *layout.size, C)`` with zeros to whole windows, shift it, and cut it: ``(B, nW, P, C)``."""
    if layout.padded != layout.size:
        x = F.pad(x, (0, 0, *padding_to(layout.size, layout.window)))  # (B, *layout.padded, C)
    if any(layout.shift):
        x = torch.roll(x, tuple(-s for s in layout.shift), dims=tuple(range(1, x.ndim - 1)))
    return window_partition(x, layout.window)


def from_windows(windows: Tensor, layout: WindowLayout) -> Tensor:
    """Undo `to_windows`: ``(B, nW, P, C)`` to ``(B, *layout.size, C)``."""
    n = len(layout.window)
    sides = _sides("zyx", layout.grid) | _sides("dhw", layout.window)
    x = rearrange(windows, f"{_WINDOWS[n]} -> {_MAP[n]}", **sides)  # (B, *layout.padded, C)
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

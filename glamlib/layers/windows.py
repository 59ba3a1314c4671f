"""Windows of an N-dimensional map: layout, partition, reverse, shift mask, relative position index.

One code for 2D and 3D. Maps are channels-last, ``(B, *size, C)``; windows are ``(B, nW, P, C)`` with ``nW`` windows of
``P`` patches, windows and patches in row-major order. Source: Liu et al., "Swin Transformer" (ICCV 2021), section 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -100.0  # Swin's value: far below any logit, and finite, so that no row of a softmax can become NaN


def kept(make: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Keep what ``make`` returns for its last 32 arguments: constants of a layout, made once for all blocks.

    They are made outside inference mode, so that training can use them; an export's or compiler's are not kept, because
    they are no real tensors.
    """
    keep = lru_cache(maxsize=32)(torch.inference_mode(False)(make))

    @wraps(make)
    def get(*arguments: object) -> Tensor | None:
        return make(*arguments) if torch.compiler.is_compiling() else keep(*arguments)

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


def _cut(x: Tensor, layout: WindowLayout, padding: int = 0) -> Tensor:
    """Pad a map ``(B, *layout.size, C)`` to whole windows, shift it, and cut it: ``(B, nW, P, C)``."""
    if layout.padded != layout.size:
        # F.pad counts dimensions from the last one, which is the channels
        widths = [w for p, s in zip(layout.padded[::-1], layout.size[::-1], strict=True) for w in (0, p - s)]
        x = F.pad(x, (0, 0, *widths), value=padding)
    if any(layout.shift):
        x = torch.roll(x, tuple(-s for s in layout.shift), dims=tuple(range(1, x.ndim - 1)))
    return window_partition(x, layout.window)


def _join(windows: Tensor, layout: WindowLayout) -> Tensor:
    """Undo `_cut`: ``(B, nW, P, C)`` to ``(B, *layout.size, C)``."""
    x = window_reverse(windows, layout)
    if any(layout.shift):
        x = torch.roll(x, layout.shift, dims=tuple(range(1, x.ndim - 1)))
    return x[(slice(None), *(slice(0, s) for s in layout.size))]


@kept
def _orders(layout: WindowLayout, num_tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where each place of the sequences of all windows comes from, and where each row goes to.

    Rows are the tokens of all windows, the patches of the map, and last, if there is padding, one of zeros.
    """
    windows, patches = layout.num_windows, prod(layout.size)
    rows = torch.arange(windows * num_tokens + patches, device=device)
    tokens, numbers = rows.split([windows * num_tokens, patches])
    cut = _cut(numbers.view(1, *layout.size, 1), layout, padding=len(rows))[0, :, :, 0]  # (nW, P)
    sources = torch.cat([tokens.view(windows, num_tokens), cut], dim=1)  # (nW, T + P)
    places = torch.arange(sources.numel(), device=device).view(sources.shape)
    joined = _join(places[None, :, num_tokens:, None], layout)  # (1, *size, 1)
    return sources.flatten(), torch.cat([places[:, :num_tokens].flatten(), joined.flatten()])


def _gather(x: Tensor, tokens: Tensor | None, layout: WindowLayout) -> Tensor:
    """Select the rows of `to_sequences`, without a gradient."""
    batch, channels = x.shape[0], x.shape[-1]
    parts = [] if tokens is None else [tokens.flatten(1, 2)]
    parts.append(x.flatten(1, -2))
    if layout.padded != layout.size:
        parts.append(x.new_zeros(batch, 1, channels))
    rows = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]  # (B, nW * T + prod(size) [+ 1], C)
    sources, _ = _orders(layout, 0 if tokens is None else tokens.shape[2], x.device)
    return rows.index_select(1, sources).unflatten(1, (layout.num_windows, -1))


def _scatter(sequences: Tensor, num_tokens: int, layout: WindowLayout) -> tuple[Tensor, Tensor | None]:
    """Select the rows of `from_sequences`, without a gradient."""
    batch, windows, _, channels = sequences.shape
    _, places = _orders(layout, num_tokens, sequences.device)
    rows = sequences.flatten(1, 2).index_select(1, places)  # (B, nW * T + prod(size), C)
    tokens, patches = rows.split([windows * num_tokens, prod(layout.size)], dim=1)
    x = patches.view(batch, *layout.size, channels)
    return x, tokens.view(batch, windows, num_tokens, channels) if num_tokens else None


class _Gather(torch.autograd.Function):
    """Each row goes to one place, so the gradient is a selection too: autograd would add into a map of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor | None, layout: WindowLayout) -> Tensor:
        ctx.layout, ctx.num_tokens = layout, 0 if tokens is None else tokens.shape[2]
        return _gather(x, tokens, layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_scatter(grad, ctx.num_tokens, ctx.layout), None


class _Scatter(torch.autograd.Function):
    """The other way round: what is `_Gather`'s gradient forward, what it does backward."""

    @staticmethod
    def forward(ctx: Any, sequences: Tensor, num_tokens: int, layout: WindowLayout) -> tuple[Tensor, Tensor | None]:
        ctx.layout = layout
        return _scatter(sequences, num_tokens, layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, token_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gather(grad, token_grad, ctx.layout), None, None


def followed() -> bool:
    """Tell whether a compiler, which fuses plain steps, or a tracer, which knows no others, is following."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def to_sequences(x: Tensor, layout: WindowLayout, tokens: Tensor | None = None) -> Tensor:
    """Pad a map with zeros to whole windows, shift it, cut it, and put each window's tokens before its patches.

    All at once: a map is copied once or, with tokens or padding, twice.

    Args:
        x: ``(B, *layout.size, C)``.
        layout: how the windows lie on the map.
        tokens: ``(B, nW, T, C)``, or None for no tokens.

    Returns:
        ``(B, nW, T + P, C)``.
    """
    if followed():
        windows = _cut(x, layout)
        return windows if tokens is None else torch.cat([tokens, windows], dim=2)
    return _Gather.apply(x, tokens, layout)


def from_sequences(sequences: Tensor, layout: WindowLayout, num_tokens: int = 0) -> tuple[Tensor, Tensor | None]:
    """Undo `to_sequences`: ``(B, nW, T + P, C)`` to the map and the tokens, None where ``num_tokens``, T, is 0."""
    if followed():
        # split, because the gradient of two slices is two maps of zeros, filled and added
        tokens, windows = sequences.split([num_tokens, sequences.shape[2] - num_tokens], dim=2)
        return _join(windows, layout), tokens if num_tokens else None
    return _Scatter.apply(sequences, num_tokens, layout)


def to_windows(x: Tensor, layout: WindowLayout) -> Tensor:
    """Pad a map ``(B, *layout.size, C)`` with zeros to whole windows, shift it, and cut it: ``(B, nW, P, C)``."""
    return to_sequences(x, layout)


def from_windows(windows: Tensor, layout: WindowLayout) -> Tensor:
    """Undo `to_windows`: ``(B, nW, P, C)`` to ``(B, *layout.size, C)``."""
    return from_sequences(windows, layout)[0]


@kept
def shift_mask(layout: WindowLayout, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the logits of shifted windows, ``(nW, P, P)``: 0 or `MASKED`; None without a shift.

    A shifted window at the border holds patches that were wrapped around from the other side; patches that are not
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


@kept
def relative_position_index(window: tuple[int, ...], table_window: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the row of the bias table for each pair of patches of a window, ``(P, P)`` integers.

    The table has ``prod(2 * table_window - 1)`` rows, one an offset query - key, row-major. ``window`` may be smaller
    than ``table_window`` (a window clipped to a small map): its offsets are among the table's.
    """
    axes = [torch.arange(w, device=device) for w in window]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (n, P)
    offsets = coordinates[:, :, None] - coordinates[:, None, :]  # (n, P, P)
    index = torch.zeros_like(offsets[0])
    for offset, extent in zip(offsets, table_window, strict=True):
        index = index * (2 * extent - 1) + offset + extent - 1
    return index

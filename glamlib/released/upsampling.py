"""Non-local upsampling as the released code has it, difference by difference.

Source: themyrl/glam at 44abe55 (`SwinUNetV2GTV8CrossAttentionUpsample`).
"""

from math import prod

import torch
from torch import Tensor, nn

from glamlib.layers.windows import WindowLayout, cached
from glamlib.models.unet import CrossWindowAttention, NonLocalUpsampling


@cached
def scrambled_index(window: tuple[int, int], device: torch.device) -> Tensor:
    """Return the released rows of the bias table for square windows, ``(4 w**2, w**2)``.

    The keys' coordinates are every fourth entry of the list of the fine window's, which gives the right row but columns
    out of order: 0, 2, 4, 6, 1, 3, 5 where they should be 0 to 6.
    """
    side = window[0]
    fine = torch.arange(4 * side**2, device=device)
    cells = torch.stack([fine // (2 * side) // 2, fine % (2 * side) // 2])  # (2, 4 w**2)
    offsets = cells[:, :, None] - cells[:, None, ::4] + side - 1
    return offsets[0] * (2 * side - 1) + offsets[1]


class ScrambledAttention(CrossWindowAttention):
    """Cross-attention whose position bias has the keys' columns in the wrong order, in a table too large."""

    def table_rows(self) -> int:
        return prod(4 * w - 1 for w in self.window_size)

    def index(self, layout: WindowLayout) -> Tensor:
        if layout.window != self.window_size:  # on a map smaller than a window: no such rows exist
            return super().index(layout)
        return scrambled_index(layout.window, self.relative_position_bias_table.device)


class ReleasedUpsampling(NonLocalUpsampling):
    """Non-local upsampling with some of the released code's differences; otherwise as `NonLocalUpsampling`."""

    def __init__(self, *arguments: object, differences: frozenset[str]) -> None:
        if "scrambled_bias" in differences:
            self.attention = ScrambledAttention
        super().__init__(*arguments)
        self.fixed_windows = "fixed_windows" in differences
        if "raw_skip" in differences:
            self.norm_skip = nn.Identity()

    def layout_of(self, x: Tensor) -> WindowLayout:
        if not self.fixed_windows:
            return super().layout_of(x)
        return WindowLayout(tuple(x.shape[1:3]), self.window_size, (0, 0))

"""Stages, blocks, attentions and upsampling as the released code has them, difference by difference.

Sources: themyrl/glam at 44abe55, mmseg/models/backbones/swin_transformer_gtv8.py and, for upsampling, the class
SwinUNetV2GTV8CrossAttentionUpsample; for volumes, themyrl/medseg at 35de82e, models/glam.py and models/nnformer.py.
"""

from functools import partial
from math import prod

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.errors import InputError
from glamlib.layers.attention import Attended, GlobalAttention, WindowAttention
from glamlib.layers.block import GlamBlock
from glamlib.layers.windows import WindowLayout, cached, relative_position_index
from glamlib.models.encoder import Stage
from glamlib.models.unet import CrossWindowAttention, NonLocalUpsampling


class TableAttention(GlobalAttention):
    """G-MSA with positions from the stage's learned table, ``table.pe`` ``(rows, C)``.

    With N tokens it reads rows a to a + N, a = rows // 2 - N // 2: the middle of a flat list, whatever the grid of
    windows. Rows out of reach never learn. On a large image the table is too short. Then this raises an error, or, if
    exactly one row is left, adds that one to all tokens, as the released code does.
    """

    def __init__(self, dim: int, num_heads: int, table: nn.Module) -> None:
        super().__init__(dim, num_heads)
        self._table = (table,)  # in a tuple, so that the stage owns it and no block does

    def add_position(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        flat, table = tokens.flatten(1, 2), self._table[0].pe  # (B, nW * T, C)
        count = flat.shape[1]
        start = len(table) // 2 - count // 2
        rows = table[start : start + count]
        if len(rows) not in (1, count):
            raise InputError(
                f"the map has {count} tokens, and the released table of this stage has {len(table)} rows: "
                "use a smaller image, more tokens per window, or the paper's behaviour"
            )
        return (flat + rows).view(tokens.shape)


@cached
def colliding_index(window: tuple[int, ...], table_window: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the released rows of the bias table for cubic windows, ``(P, P)``.

    The first dimension's stride is 3 w - 1, where ``(2 w - 1)**2`` would tell all offsets apart: of the 343 rows for
    w = 4, 115 are used. nnFormer's code has it, too.
    """
    side = table_window[0]
    row = relative_position_index(window, table_window, device)
    depth, rest = row // (2 * side - 1) ** 2, row % (2 * side - 1) ** 2
    return depth * (3 * side - 1) + rest


class CollidingAttention(WindowAttention):
    """Window attention whose position bias does not tell all offsets apart."""

    def index(self, layout: WindowLayout) -> Tensor:
        return colliding_index(layout.window, self.window_size, self.relative_position_bias_table.device)


class ReleasedBlock(GlamBlock):
    """A `GlamBlock` with some of the released code's differences."""

    def __init__(self, *, differences: frozenset[str], is_last: bool, mixer: str, **options: object) -> None:
        has_last_mixer = "last_gmsa" in differences and mixer != "none"
        super().__init__(is_last=is_last and not has_last_mixer, mixer=mixer, **options)
        self.differences = differences
        if "bare_gmsa" in differences:
            self.norm_mixer = None
        if "colliding_bias" in differences:
            sizes = (options["dim"], options["num_heads"], self.window_size)
            self.attn = CollidingAttention(*sizes, self.attn.mask_tokens)

    def layout_of(self, x: Tensor) -> WindowLayout:
        size = tuple(x.shape[1:-1])
        if "fixed_windows" in self.differences:
            return WindowLayout(size, self.window_size, tuple(w // 2 if self.shifted else 0 for w in self.window_size))
        if "cubic_windows" in self.differences and min(size) <= min(self.window_size):
            return WindowLayout.fit(size, (min(size),) * len(size), shifted=False)
        return super().layout_of(x)

    def enter(self, tokens: Tensor) -> Tensor:
        return tokens if "raw_tokens" in self.differences else super().enter(tokens)

    def pass_on(self, tokens: Tensor, update: Tensor, grid: tuple[int, ...], return_attention: bool) -> Attended:
        differences, weights = self.differences, None
        tokens = update if "no_token_residual" in differences else tokens + self.drop_path(update)
        if "early_token_mlp" in differences:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        if self.mixer is not None and "bare_gmsa" in differences:
            tokens, weights = self.mixer(tokens, grid, return_attention)
        elif self.mixer is not None:
            exchanged, weights = self.mixer(self.norm_mixer(tokens), grid, return_attention)
            tokens = tokens + self.drop_path(exchanged)
        if not differences & {"early_token_mlp", "no_token_mlp"}:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens.clamp(-1, 1) if "clamped_tokens" in differences else tokens, weights


class ReleasedStage(Stage):
    """A stage with some of the released code's differences; otherwise the arguments of `Stage`."""

    def __init__(self, *arguments: object, differences: frozenset[str]) -> None:
        super().__init__(*arguments, make_block=partial(ReleasedBlock, differences=differences))
        if self.global_tokens is None:
            return
        if "random_tokens" in differences:
            nn.init.normal_(self.global_tokens)
        if "position_table" in differences:
            (num_tokens, dim), ratio = self.global_tokens.shape, 2**self.level
            count = (45 * num_tokens // ratio) ** 2
            if len(self.window_size) == 3:  # for 128 voxels a side and patches of 4
                count = (32 // self.window_size[0] * num_tokens // ratio) ** 3
            self.position_table = nn.ParameterDict({"pe": trunc_normal_(torch.zeros(count, dim), std=0.02)})
            for block in self.blocks:
                if block.mixer is not None:
                    block.mixer = TableAttention(dim, block.mixer.num_heads, self.position_table)


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

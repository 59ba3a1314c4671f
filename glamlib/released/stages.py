"""Stages, blocks and G-MSA as the released code has them, difference by difference.

Source: themyrl/glam at 44abe55, mmseg/models/backbones/swin_transformer_gtv8.py.
"""

from functools import partial

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.errors import InputError
from glamlib.layers.attention import GlobalAttention
from glamlib.layers.block import GlamBlock
from glamlib.layers.windows import WindowLayout
from glamlib.models.stage import Stage


class PositionTable(nn.Module):
    """A learned table of token positions.

    G-MSA over N tokens reads rows a to a + N, a = rows // 2 - N // 2: the middle of a flat list, whatever the grid of
    windows. Rows out of reach never learn. On a large image the table is too short: then this stops with an
    error, or, where one row is left by chance, adds that one to all tokens; the released code does so, too.
    """

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.pe = nn.Parameter(torch.zeros(rows, dim))
        trunc_normal_(self.pe, std=0.02)

    def slice(self, count: int) -> Tensor:
        """Return the rows for ``count`` tokens, in the order (window, token)."""
        start = len(self.pe) // 2 - count // 2
        rows = self.pe[start : start + count]
        if len(rows) not in (1, count):
            raise InputError(
                f"the map has {count} tokens, and the released table of this stage has {len(self.pe)} rows: "
                "use a smaller image, more tokens a window, or the paper's behaviour"
            )
        return rows


class TableAttention(GlobalAttention):
    """G-MSA with positions from the stage's table."""

    def __init__(self, dim: int, num_heads: int, table: PositionTable) -> None:
        super().__init__(dim, num_heads)
        self._table = (table,)  # in a tuple, so that the stage owns it and no block does

    def add_position(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        flat = tokens.flatten(1, 2)  # (B, nW * T, C)
        return (flat + self._table[0].slice(flat.shape[1])).view(tokens.shape)


class ReleasedBlock(GlamBlock):
    """A GLAM block with some of the released code's differences; otherwise the arguments of `GlamBlock`."""

    def __init__(self, *, differences: frozenset[str], is_last: bool, mixer: str, **options: object) -> None:
        keeps_tokens = "last_gmsa" in differences and mixer != "none"
        super().__init__(is_last=is_last and not keeps_tokens, mixer=mixer, **options)
        self.differences = differences
        if "bare_gmsa" in differences:
            self.norm_mixer = None

    def layout_of(self, x: Tensor) -> WindowLayout:
        if "fixed_windows" not in self.differences:
            return super().layout_of(x)
        shift = tuple(w // 2 if self.shifted else 0 for w in self.window_size)
        return WindowLayout(tuple(x.shape[1:-1]), self.window_size, shift)

    def enter(self, tokens: Tensor) -> Tensor:
        return tokens if "raw_tokens" in self.differences else super().enter(tokens)

    def pass_on(
        self, tokens: Tensor, update: Tensor, grid: tuple[int, ...], return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        tokens = update if "no_token_residual" in self.differences else tokens + self.drop_path(update)
        tokens, weights = self.exchange(tokens, grid, return_attention)
        if "no_token_mlp" not in self.differences:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens, weights

    def exchange(self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Return the tokens after the mixer, and its weights if asked for."""
        if self.mixer is None:
            return tokens, None
        bare = "bare_gmsa" in self.differences
        exchanged, weights = self.mixer(tokens if bare else self.norm_mixer(tokens), grid, return_attention)
        return exchanged if bare else tokens + self.drop_path(exchanged), weights


class ReleasedStage(Stage):
    """A stage with some of the released code's differences; otherwise the arguments of `Stage`."""

    make_block: type[ReleasedBlock] = ReleasedBlock

    def __init__(
        self,
        *,
        differences: frozenset[str],
        dim: int,
        num_heads: int,
        num_global_tokens: int,
        level: int,
        **options: object,
    ) -> None:
        super().__init__(
            dim=dim,
            num_heads=num_heads,
            num_global_tokens=num_global_tokens,
            level=level,
            make_block=partial(self.make_block, differences=differences),
            **options,
        )
        if num_global_tokens and "random_tokens" in differences:
            nn.init.normal_(self.global_tokens)
        if num_global_tokens and "position_table" in differences:
            self.position_table = PositionTable(self.table_rows(num_global_tokens, level), dim)
            for block in self.blocks:
                if isinstance(block.mixer, GlobalAttention):
                    block.mixer = TableAttention(dim, num_heads, self.position_table)

    def table_rows(self, num_global_tokens: int, level: int) -> int:
        """Return the rows of the table of positions."""
        return (45 * num_global_tokens // 2**level) ** 2

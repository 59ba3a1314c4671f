"""Networks for volumes as the released code has them, difference by difference.

Source: themyrl/medseg at 35de82e, models/glam.py and models/nnformer.py. Not copied: the input size fixed at
construction, and what is computed and never read but a block's G-MSA (a downsampling after the last stage, a third
head).
"""

from functools import partial

import torch
from torch import Tensor

from glamlib.layers.attention import WindowAttention
from glamlib.layers.windows import WindowLayout, kept, relative_position_index
from glamlib.models.volumes import VolumeParts
from glamlib.released.parts import differences_of
from glamlib.released.stages import ReleasedBlock, ReleasedStage

VOLUME_DIFFERENCES = {
    "raw_tokens": "tokens enter window attention without the norm that patches get",
    "early_token_mlp": "the MLP on tokens comes before G-MSA instead of after it",
    "bare_gmsa": "no norm before G-MSA and no residual around it",
    "clamped_tokens": "a block cuts its tokens to values from -1 to 1",
    "position_table": "a learned table of positions, of which G-MSA reads a flat middle slice",
    "last_gmsa": "the last block of a stage has a G-MSA whose result nothing reads",
    "random_tokens": "tokens start from a normal distribution of deviation 1 instead of 0.02",
    "colliding_bias": "different offsets of patches share a row of the position bias table",
    "cubic_windows": "where any side of the map is no larger than a window, all sides of the window shrink to it",
    "fixed_heads": "auxiliary heads make 4 x 4 x 4 voxels of a patch, whatever the patch embedding's",
    "one_auxiliary": "deep supervision at half the size only, not at a quarter",
    "default_init": "linear layers start as PyTorch makes them",
}


@kept
def colliding_index(window: tuple[int, ...], table_window: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the released rows of the bias table for cubic windows, ``(P, P)``.

    The first dimension's stride is 3 w - 1 where ``(2 w - 1)**2`` would tell all offsets apart: of the 343 rows for
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


class ReleasedVolumeBlock(ReleasedBlock):
    """A GLAM block with some of the released 3D code's differences; otherwise the arguments of `GlamBlock`."""

    def __init__(self, *, dim: int, num_heads: int, window_size: tuple[int, ...], **options: object) -> None:
        super().__init__(dim=dim, num_heads=num_heads, window_size=window_size, **options)
        if "colliding_bias" in self.differences:
            self.attn = CollidingAttention(dim, num_heads, window_size)

    def layout_of(self, x: Tensor) -> WindowLayout:
        size = tuple(x.shape[1:-1])
        if "cubic_windows" in self.differences and min(size) <= min(self.window_size):
            return WindowLayout.fit(size, (min(size),) * len(size), shifted=False)
        return super().layout_of(x)

    def pass_on(
        self, tokens: Tensor, update: Tensor, grid: tuple[int, ...], return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        tokens = tokens + self.drop_path(update)
        if "early_token_mlp" in self.differences:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        tokens, weights = self.exchange(tokens, grid, return_attention)
        if "early_token_mlp" not in self.differences:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens.clamp(-1, 1) if "clamped_tokens" in self.differences else tokens, weights


class ReleasedVolumeStage(ReleasedStage):
    """A stage with some of the released 3D code's differences; otherwise the arguments of `Stage`."""

    make_block = ReleasedVolumeBlock

    def table_rows(self, num_global_tokens: int, level: int) -> int:
        """Return the rows of the table of positions: those of a volume of 128 voxels a side and patches of 4."""
        return (32 // self.window_size[0] * num_global_tokens // 2**level) ** 3


def volume_parts_of(behaviour: str) -> VolumeParts:
    """Return the parts of a network for volumes of this behaviour: the paper's own where nothing differs."""
    differences = differences_of(behaviour, VOLUME_DIFFERENCES)
    if not differences:
        return VolumeParts()
    return VolumeParts(
        make_stage=partial(ReleasedVolumeStage, differences=differences),
        auxiliary_side=4 if "fixed_heads" in differences else None,
        max_auxiliary=1 if "one_auxiliary" in differences else None,
        initialise="default_init" not in differences,
    )

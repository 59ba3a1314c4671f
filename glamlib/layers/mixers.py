"""What exchanges between the windows of a map: the table of mixers that a block can hold.

A mixer is a module with ``forward(tokens, grid, return_attention=False) -> (update, weights)``: tokens
``(B, nW, T, C)`` of all windows, the grid of windows, and an update of the tokens' shape that the block adds.
A mixer of patches gets the map in the same form: each patch ``(B, P, 1, C)`` is a window of its own.
"""

from glamlib.errors import lookup
from glamlib.layers.attention import GlobalAttention
from glamlib.layers.patch_mixers import FullAttention, PatchMixer, ReducedAttention, SharedTokens, SparseAttention
from glamlib.layers.token_mixers import (
    LinearAttention,
    LowRankAttention,
    MemoryAttention,
    PerformerAttention,
    PooledAttention,
)

MIXERS: dict[str, type[GlobalAttention] | None] = {
    "gmsa": GlobalAttention,  # GLAM: every token attends to every token
    "none": None,  # tokens stay inside their windows: the control that tells tokens from exchange
    # between tokens, in place of G-MSA
    "pooled": PooledAttention,
    "low_rank": LowRankAttention,
    "linear": LinearAttention,
    "performer": PerformerAttention,
    "memory": MemoryAttention,
    # between patches; tokens are not needed, and stay inside their windows where there are some
    "shared": SharedTokens,
    "reduced": ReducedAttention,
    "sparse": SparseAttention,
    "full": FullAttention,
}


def acts_on_patches(name: str) -> bool:
    """Return whether a mixer works between patches, and so without global tokens; InputError for an unknown name."""
    mixer = lookup("mixer", name, MIXERS)
    return mixer is not None and issubclass(mixer, PatchMixer)


def create_mixer(name: str, dim: int, num_heads: int, window_size: tuple[int, ...]) -> GlobalAttention | None:
    """Return a new mixer of ``dim`` channels for windows of ``window_size``, None for "none"; InputError as above."""
    if acts_on_patches(name):
        return MIXERS[name](dim, num_heads, window_size)
    return None if name == "none" else MIXERS[name](dim, num_heads)

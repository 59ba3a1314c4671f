"""What exchanges between the windows of a map: the table of mixers that a block can hold.

A mixer is a module with ``forward(tokens, grid, return_attention=False) -> (update, weights)``: tokens
``(B, nW, T, C)`` of all windows, the grid of windows, and an update of the tokens' shape that the block adds.
A mixer of patches gets the map in the same form: each patch ``(B, P, 1, C)`` is a window of its own.
"""

from glamlib.errors import lookup
from glamlib.layers import patch_mixers, token_mixers
from glamlib.layers.attention import GlobalAttention

MIXERS: dict[str, type[GlobalAttention] | None] = {
    "gmsa": GlobalAttention,  # GLAM: every token attends to every token
    "none": None,  # tokens stay inside their windows: the control that tells tokens from exchange
    # between tokens, in place of G-MSA
    "pooled": token_mixers.PooledAttention,
    "low_rank": token_mixers.LowRankAttention,
    "linear": token_mixers.LinearAttention,
    "performer": token_mixers.PerformerAttention,
    "memory": token_mixers.MemoryAttention,
    # between patches; tokens are not needed, and stay inside their windows where there are some
    "shared": patch_mixers.SharedTokens,
    "reduced": patch_mixers.ReducedAttention,
    "sparse": patch_mixers.SparseAttention,
    "full": patch_mixers.FullAttention,
}


def acts_on_patches(name: str) -> bool:
    """Return whether a mixer works between patches, and so without global tokens; InputError for an unknown name."""
    mixer = lookup("mixer", name, MIXERS)
    return mixer is not None and issubclass(mixer, patch_mixers.PatchMixer)


def create_mixer(name: str, dim: int, num_heads: int, window_size: tuple[int, ...]) -> GlobalAttention | None:
    """Return a new mixer of ``dim`` channels for windows of ``window_size``, None for "none"; InputError as above."""
    if acts_on_patches(name):
        return MIXERS[name](dim, num_heads, window_size)
    return None if name == "none" else MIXERS[name](dim, num_heads)

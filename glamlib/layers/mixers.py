"""What exchanges between the windows of a map: the table of mixers that a block can hold.

A mixer is a module with ``forward(tokens, grid, return_attention=False) -> (update, weights)``: tokens
``(B, nW, T, C)`` of all windows, the grid of windows, and an update of the tokens' shape that the block adds.
"""

from torch import nn

from glamlib.errors import one_of

from .attention import GlobalAttention

MIXERS: dict[str, type[nn.Module] | None] = {
    "gmsa": GlobalAttention,  # GLAM: every token attends to every token
    "none": None,  # tokens stay inside their windows: the control that tells tokens from exchange
}


def create_mixer(name: str, dim: int, num_heads: int) -> nn.Module | None:
    """Return a new mixer for tokens of ``dim`` channels, None for "none"; InputError for an unknown name."""
    if name not in MIXERS:
        raise one_of("mixer", name, MIXERS)
    mixer = MIXERS[name]
    return mixer(dim, num_heads) if mixer else None

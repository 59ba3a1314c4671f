"""Full attention: the upper bound."""

from .base import PatchMixer


class FullAttention(PatchMixer):
    """Every patch attends to every patch of the map (Vaswani et al., "Attention is all you need", NeurIPS 2017, eq. 1).

    Quadratic in the number of patches.
    """

"""Memory: a few learned slots gather from all tokens, and all tokens read them."""

import torch
from torch import Tensor, nn

from glamlib.layers.attention import attend

from .base import TokenMixer


class MemoryAttention(TokenMixer):
    """Attention through ``slots`` learned vectors m: softmax(q m^T / sqrt(d)) softmax(m k^T / sqrt(d)) v.

    The slots gather from all tokens and all tokens read the slots, and nothing else: the bottleneck of Burtsev et al.,
    "Memory Transformer" (2020), section 3.3, and the inducing points of Lee et al., "Set Transformer" (ICML 2019), eq.
    9 and 10. As keys of the second attention the slots themselves serve (Han et al., "Agent attention", ECCV 2024, eq.
    4), which saves a projection. Linear in the number of tokens.
    """

    slots = 16

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.memory = nn.Parameter(torch.zeros(num_heads, self.slots, dim // num_heads))
        # Slots that start with sharp preferences gather different things; small ones learn slower on the cue scenes.
        nn.init.normal_(self.memory, std=3.0)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        memory = self.memory.to(q.dtype).expand(len(q), -1, -1, -1)  # (B, heads, slots, d)
        gathered, _ = attend(memory, k, v)
        return attend(q, memory, gathered)[0]

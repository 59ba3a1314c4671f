"""Exchanges between global tokens in place of G-MSA that never build the matrix of all pairs of tokens.

Their cost is linear in the number of windows. Each class names the paper that it comes from.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from glamlib.layers.attention import Attended, GlobalAttention, attend, sine_position_code


class TokenMixer(GlobalAttention):
    """Exchange between global tokens that never builds the matrix of all pairs of them."""

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return what each query reads, ``(B, heads, nW * T, d')``, linear in ``v``, ``(B, heads, nW * T, d')``.

        q and k are ``(B, heads, nW * T, d)``, window by window.
        """

    def exchange(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...], return_attention: bool) -> Attended:
        if not return_attention:
            return self.mix(q, k, v, grid), None
        # As `mix` is linear in v, the values of the identity are the weights of any values.
        identity = torch.eye(v.shape[2], dtype=v.dtype, device=v.device).expand(*v.shape[:3], -1)
        weights = self.mix(q, k, identity, grid)
        return weights @ v, weights


class KernelAttention(TokenMixer):
    """Attention with weights f(q)·f(k) over their sum: f(q) (f(k)^T v) / (f(q) f(k)^T 1).

    Katharopoulos et al., "Transformers are RNNs" (ICML 2020), eq. 5. Keys and values are summed once.
    """

    @abstractmethod
    def features(self, x: Tensor, is_query: bool) -> Tensor:
        """Return the positive features ``(B, heads, N, m)`` of queries or keys ``(B, heads, N, d)``."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        with_ones = F.pad(v, (0, 1), value=1.0)  # the last column becomes the sum of weights
        summed = self.features(k, is_query=False).transpose(2, 3) @ with_ones  # (B, heads, m, d + 1)
        y = self.features(q, is_query=True) @ summed  # (B, heads, N, d + 1)
        return y[..., :-1] / y[..., -1:]


class LinearAttention(KernelAttention):
    """The features elu(x) + 1 (Katharopoulos et al., ICML 2020, eq. 7)."""

    def features(self, x: Tensor, is_query: bool) -> Tensor:
        return F.elu(x) + 1


def orthogonal_features(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Return ``(count, dim)`` normal vectors, orthogonal to each other in groups of ``dim`` (Choromanski, section 2.4).

    Directions are those of a random rotation, lengths those of independent normal vectors.
    """
    groups = -(-count // dim)
    rotations = torch.empty(groups, dim, dim, device="cpu")  # the same vectors on every device
    for rotation in rotations:
        nn.init.orthogonal_(rotation, generator=generator)
    lengths = torch.randn(count, dim, generator=generator, device="cpu").norm(dim=1, keepdim=True)
    return rotations.flatten(0, 1)[:count] * lengths


class PerformerAttention(KernelAttention):
    """Random positive features that give softmax attention on average (FAVOR+).

    f(x) = exp(w·x - |x|^2 / 2) for the ``num_features`` fixed random vectors w, of x = q / d^(1/4) and k / d^(1/4).
    Choromanski et al., "Rethinking attention with Performers" (ICLR 2021), lemma 1 and section 2.4. The vectors are the
    same in all heads and blocks, drawn once from a fixed seed, and part of the state dict.
    """

    num_features = 64

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        vectors = orthogonal_features(self.num_features, dim // num_heads, torch.Generator().manual_seed(0))
        self.register_buffer("vectors", vectors)

    def features(self, x: Tensor, is_query: bool) -> Tensor:
        x = x * x.shape[-1] ** -0.25
        logits = F.linear(x, self.vectors.to(x.dtype)) - x.square().sum(dim=-1, keepdim=True) / 2  # (B, heads, N, m)
        # The subtracted maximum cancels in the quotient: each query's own, and one for all keys.
        return (logits - logits.amax(dim=-1 if is_query else (-2, -1), keepdim=True)).exp() + 1e-6


class LowRankAttention(TokenMixer):
    """Attention to projected keys and values: softmax(q (E k)^T / sqrt(d)) E v, with E of ``rank`` rows.

    Wang et al., "Linformer: self-attention with linear complexity" (2020), eq. 7, one E for keys, values and heads.
    Linformer learns one column of E per element, which fixes their number. Here a row of E is the softmax over windows
    of a learned linear function of their position code, so it is defined for any number of windows.
    """

    rank = 16

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.rows = nn.Parameter(torch.zeros(self.rank, dim))
        # The squares of a code sum to dim / 2, so logits have a deviation of 8: each row starts on a few windows.
        # Rows that start as means of all windows learn more slowly.
        nn.init.normal_(self.rows, std=(128 / dim) ** 0.5)

    def projection(self, grid: tuple[int, ...]) -> Tensor:
        """Return E, ``(rank, nW)``; each row sums to 1."""
        code = sine_position_code(grid, self.rows.shape[1], self.rows.device, self.rows.dtype)
        return F.linear(self.rows, code).softmax(dim=-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        rows = self.projection(grid).to(k.dtype)
        return attend(q, self.project(k, rows), self.project(v, rows))[0]

    def project(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return ``(B, heads, rank * T, d)`` of ``(B, heads, nW * T, d)``."""
        channels = rearrange(x, "b h (w t) d -> b h (t d) w", w=rows.shape[1])
        return rearrange(F.linear(channels, rows), "b h (t d) rank -> b h (rank t) d", d=x.shape[-1])


class MemoryAttention(TokenMixer):
    """Attention through ``slots`` learned vectors m: softmax(q m^T / sqrt(d)) softmax(m k^T / sqrt(d)) v.

    The slots gather from all tokens, and all tokens read the slots: Burtsev et al., "Memory Transformer" (2020), sec.
    3.3; Lee et al., "Set Transformer" (ICML 2019), eq. 9 and 10. The slots also serve as the keys of the second
    attention (Han et al., "Agent attention", ECCV 2024, eq. 4).
    """

    slots = 16

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.memory = nn.Parameter(torch.zeros(num_heads, self.slots, dim // num_heads))
        # Large slots start with sharp preferences and gather different things. Small ones learn more slowly.
        nn.init.normal_(self.memory, std=3.0)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        memory = self.memory.to(q.dtype).expand(len(q), -1, -1, -1)  # (B, heads, slots, d)
        gathered, _ = attend(memory, k, v)
        return attend(q, memory, gathered)[0]


_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class PooledAttention(TokenMixer):
    """G-MSA whose keys and values are means over neighbouring windows, on a grid of at most ``cells`` a dimension.

    The t-th token of a cell is the mean of the t-th tokens of its windows. A map of fewer windows is not pooled: there
    this is G-MSA. After the linear attention of PVT v2 (Wang et al., Computational Visual Media 2022, section 3.2).
    """

    cells = 4

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        if max(grid) <= self.cells:
            return attend(q, k, v)[0]
        return attend(q, self.pool(k, grid), self.pool(v, grid))[0]

    def pool(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the means ``(B, heads, cells * T, d)`` of ``(B, heads, nW * T, d)``."""
        batch, heads, _, channels = x.shape
        cells = tuple(min(g, self.cells) for g in grid)
        x = x.reshape(batch * heads, *grid, -1).movedim(-1, 1)  # (B * heads, T * d, *grid)
        x = _POOL[len(grid)](x, cells).movedim(1, -1)  # (B * heads, *cells, T * d)
        return x.reshape(batch, heads, -1, channels)

"""Kernels: attention whose weights are products of positive features, so that keys and values are summed once."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import TokenMixer


class KernelAttention(TokenMixer):
    """Attention with weights f(q)·f(k) over their sum: f(q) (f(k)^T v) / (f(q) f(k)^T 1).

    Katharopoulos et al., "Transformers are RNNs" (ICML 2020), eq. 5. Linear in the number of tokens.
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
    normal = {"generator": generator, "device": "cpu"}  # the same on every device
    groups = []
    for _ in range(-(-count // dim)):
        rotation, triangle = torch.linalg.qr(torch.randn(dim, dim, **normal))
        groups.append(rotation * triangle.diagonal().sign())  # without the signs the rotation is not uniform
    lengths = torch.randn(count, dim, **normal).norm(dim=1, keepdim=True)
    return torch.cat(groups)[:count] * lengths


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
        # What is taken off cancels in the quotient: of each query its own maximum, of the keys the one of them all.
        return (logits - logits.amax(dim=-1 if is_query else (-2, -1), keepdim=True)).exp() + 1e-6

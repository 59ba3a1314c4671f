"""Window attention with optional global tokens (W-MSA), and global attention between all tokens (G-MSA).

Themyr et al., "Full Contextual Attention for Multi-resolution Transformers in Semantic Segmentation" (WACV 2023),
section 3; the window attention without tokens is that of Swin. Each attention can be computed in two ways: fused
(`scaled_dot_product_attention`, which never returns its weights) and explicit (which does, for the notebooks).
"""

from math import prod

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.windows import WindowLayout, kept, relative_position_index, shift_mask


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, return_attention: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return ``softmax(q k^T / sqrt(d) + bias) v`` and, if asked, the weights.

    q is ``(..., N, d)``; k and v are ``(..., M, d)``; bias broadcasts to ``(..., N, M)``.
    """
    if not return_attention and bias is None and q.device.type == "cpu":
        return _attend_balanced(q, k, v), None
    # A CPU's fused kernel knows no gradient of the bias, and what torch falls back to guards against rows that are
    # masked as a whole, which there are none of.
    falls_back = bias is not None and bias.requires_grad and q.device.type == "cpu"
    if not return_attention and not falls_back:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias), None
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        logits += bias
    weights = logits.softmax(dim=-1)
    return weights @ v, weights if return_attention else None


def _attend_balanced(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by the CPU's flash kernel, with its threads all at work.

    Its backward pass shares out batch x heads between the threads, nothing finer: three heads keep two threads busy
    three quarters of the time. So the queries are cut into as many parts as make the shares even, each a head of its
    own with the same keys. Slices of a packed qkv are copied first: the kernel reads the keys once for every block of
    queries, and rows that lie apart cost it more than the copy.
    """
    batch, heads, length, width = q.shape
    threads = torch.get_num_threads()
    parts = next((n for n in range(1, threads + 1) if batch * heads * n % threads == 0 and length % n == 0), 1)
    q = q.reshape(batch, heads * parts, length // parts, width)
    # (B, heads, M, d) -> (B, heads * parts, M, d)
    k, v = (t[:, :, None].expand(-1, -1, parts, -1, -1).reshape(batch, heads * parts, *t.shape[2:]) for t in (k, v))
    return F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous()).reshape(
        batch, heads, length, -1
    )


class WindowAttention(nn.Module):
    """Multi-head attention inside each window, over its global tokens and its patches in one sequence (W-MSA).

    The relative position bias and the shift mask act between patches only: a token belongs to its whole window and has
    no place in it. With no tokens this is Swin's window attention, with the same parameter names.
    """

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.zeros(prod(2 * w - 1 for w in window_size), num_heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def index(self, layout: WindowLayout) -> Tensor:
        """Return the row of the bias table for each pair of patches of a window, ``(P, P)``."""
        return relative_position_index(layout.window, self.window_size, self.relative_position_bias_table.device)

    def bias(self, layout: WindowLayout, num_tokens: int) -> Tensor:
        """Return what is added to the logits: ``(1 or nW, heads, T + P, T + P)``, zero in token rows and columns."""
        table = self.relative_position_bias_table
        index = self.index(layout)
        bias = table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)[None]  # (1, heads, P, P)
        mask = shift_mask(layout, table.device, table.dtype)
        if mask is not None:
            bias = bias + mask[:, None]  # (nW, heads, P, P)
        return F.pad(bias, (num_tokens, 0, num_tokens, 0)) if num_tokens else bias

    def forward(
        self, x: Tensor, layout: WindowLayout, num_tokens: int = 0, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend inside each window.

        Args:
            x: ``(B, nW, T + P, C)``: the T global tokens of each window first, then its P patches.
            layout: how the windows lie on the map.
            num_tokens: T.
            return_attention: compute explicitly and return the weights.

        Returns:
            The attended sequence, shaped as ``x``, and the weights ``(B, nW, heads, T + P, T + P)`` or None.
        """
        batch, windows, length, channels = x.shape
        qkv = self.qkv(x).view(batch, windows, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, nW, heads, T + P, d)
        bias = self.bias(layout, num_tokens).to(q.dtype)
        # Four dimensions, so that the fused kernels apply: an unshifted bias is one for all windows and images, a
        # shifted one for all images; folded like this, either broadcasts and nothing is copied per image.
        if bias.shape[0] == 1:
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # (B * nW, heads, T + P, d)
        else:
            q, k, v = (t.flatten(1, 2) for t in (q, k, v))  # (B, nW * heads, T + P, d)
            bias = bias.flatten(0, 1)[None]  # (1, nW * heads, T + P, T + P)
        y, weights = attend(q, k, v, bias, return_attention)
        y = y.reshape(batch, windows, self.num_heads, length, -1).transpose(2, 3)
        y = self.proj(y.reshape(batch, windows, length, channels))
        if weights is not None:
            weights = weights.reshape(batch, windows, self.num_heads, length, length)
        return y, weights


@kept
def sine_position_code(grid: tuple[int, ...], dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the code of each window's place in the grid of windows, ``(nW, dim)``.

    Sines and cosines of the window's row, column (and slice), as Vaswani et al. (2017) have them for one dimension,
    the channels shared out between the dimensions. It has no parameters and is defined for any number of windows:
    the released code's learned table is neither (it fails or misplaces on large images).
    """
    frequencies = dim // (2 * len(grid))
    scale = 1000.0 ** (-torch.arange(frequencies, device=device, dtype=torch.float32) / max(frequencies, 1))
    axes = torch.meshgrid(*(torch.arange(g, device=device, dtype=torch.float32) for g in grid), indexing="ij")
    angles = torch.cat([axis.flatten()[:, None] * scale for axis in axes], dim=1)  # (nW, n * frequencies)
    code = torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(code, (0, dim - code.shape[1])).to(dtype)


class GlobalAttention(nn.Module):
    """Multi-head attention over all global tokens of all windows of an image (G-MSA); other mixers derive from it."""

    acts_on = "tokens"  # see glamlib.layers.mixers

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def add_position(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return tokens ``(B, nW, T, C)`` that know their window's place."""
        return tokens + sine_position_code(grid, tokens.shape[-1], tokens.device, tokens.dtype)[:, None]

    def exchange(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...], return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return what each query reads, and the weights if asked for; q, k and v are ``(B, heads, nW * T, d)``."""
        return attend(q, k, v, return_attention=return_attention)

    def forward(
        self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let every token attend to every token.

        Args:
            tokens: ``(B, nW, T, C)``.
            grid: windows along each dimension of the map; their product is nW.
            return_attention: compute explicitly and return the weights.

        Returns:
            The attended tokens, shaped as ``tokens``, and the weights ``(B, heads, nW * T, nW * T)`` or None.
        """
        batch, windows, per_window, channels = tokens.shape
        x = self.add_position(tokens, grid)
        qkv = self.qkv(x).view(batch, windows * per_window, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, nW * T, d)
        y, weights = self.exchange(q, k, v, grid, return_attention)
        return self.proj(y.transpose(1, 2).reshape(batch, windows, per_window, channels)), weights

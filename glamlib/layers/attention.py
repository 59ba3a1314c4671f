"""Window attention with optional global tokens (W-MSA), and global attention between all tokens (G-MSA).

Themyr et al., "Full Contextual Attention for Multi-resolution Transformers in Semantic Segmentation" (WACV 2023),
section 3. Without tokens, the window attention is Swin's.
"""

from math import prod

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.windows import WindowLayout, cached, relative_position_index, shift_mask

Attended = tuple[Tensor, Tensor | None]  # what was read, and the weights if they were asked for


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, return_attention: bool = False) -> Attended:
    """Return ``softmax(q k^T / sqrt(d) + bias) v`` and, if asked, the weights; else they are never formed.

    q is ``(..., N, d)``; k and v are ``(..., M, d)``; bias broadcasts to ``(..., N, M)``.
    """
    # For a trained bias torch has no fused kernel on a CPU, and its fallback is slower than the equation.
    fused = bias is None or not bias.requires_grad or q.device.type != "cpu"
    if fused and not return_attention:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        # torch decomposes an exported kernel in several ways, which lay its output out differently in memory
        return (y.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else y), None
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (..., N, M)
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    return weights @ v, weights if return_attention else None


class WindowAttention(nn.Module):
    """Multi-head attention inside each window, over its global tokens and its patches in one sequence (W-MSA).

    The relative position bias and the shift mask act between patches only: a token belongs to its whole window and has
    no place in it. So a token of a wrapped window carries what one edge of the map holds to the opposite edge. With
    ``mask_tokens`` it does not: a token then has the shift mask of its window's first patch, which is never a wrapped
    one. With no tokens this is Swin's window attention, with the same parameter names.
    """

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, ...], mask_tokens: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.mask_tokens = mask_tokens
        self.relative_position_bias_table = nn.Parameter(torch.zeros(prod(2 * w - 1 for w in window_size), num_heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def index(self, layout: WindowLayout) -> Tensor:
        """Return the row of the bias table for each pair of patches of a window, ``(P, P)``."""
        return relative_position_index(layout.window, self.window_size, self.relative_position_bias_table.device)

    def bias(self, layout: WindowLayout, num_tokens: int) -> Tensor:
        """Return what is added to the logits: ``(1 or nW, heads, T + P, T + P)``, zero or a mask for tokens."""
        table = self.relative_position_bias_table
        bias = table[self.index(layout)].permute(2, 0, 1)[None]  # (1, heads, P, P)
        mask = shift_mask(layout, table.device, table.dtype)
        places = (num_tokens, 0, num_tokens, 0)  # of the tokens: before the patches
        if mask is not None and num_tokens and self.mask_tokens:
            return F.pad(bias, places) + F.pad(mask[:, None], places, mode="replicate")  # the first patch's mask
        if mask is not None:
            bias = bias + mask[:, None]  # (nW, heads, P, P)
        return F.pad(bias, places) if num_tokens else bias

    def forward(self, x: Tensor, layout: WindowLayout, num_tokens: int = 0, return_attention: bool = False) -> Attended:
        """Attend inside each window of ``x``, ``(B, nW, T + P, C)``: T = ``num_tokens`` tokens first, then P patches.

        Returns the attended sequence, shaped as ``x``, and the weights ``(B, nW, heads, T + P, T + P)`` or None.
        """
        bias = self.bias(layout, num_tokens)
        # Fused kernels take four dimensions. Folded like this, the bias broadcasts over images (and windows, if it is
        # the same for all) and is never copied. The second way copies q, k and v; one image does not need it.
        folded = "(b w) h n d"
        if len(bias) > 1 and x.shape[0] > 1:
            folded, bias = "b (w h) n d", bias.flatten(0, 1)[None]  # (1, nW * heads, T + P, T + P)
        q, k, v = rearrange(self.qkv(x), f"b w n (three h d) -> three {folded}", three=3, h=self.num_heads)
        y, weights = attend(q, k, v, bias.to(q.dtype), return_attention)
        sides = {"w": x.shape[1], "h": self.num_heads}
        if weights is not None:
            weights = rearrange(weights, f"{folded} -> b w h n d", **sides)
        return self.proj(rearrange(y, f"{folded} -> b w n (h d)", **sides)), weights


@cached
def sine_position_code(grid: tuple[int, ...], dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return sines and cosines of each window's (slice,) row and column, ``(nW, dim)``, after Vaswani et al. (2017).

    Unlike the released code's learned table, it has no parameters and is defined for any number of windows.
    """
    frequencies = dim // (2 * len(grid))
    scale = 1000.0 ** (-torch.arange(frequencies, device=device, dtype=torch.float32) / max(frequencies, 1))
    axes = torch.meshgrid(*(torch.arange(g, device=device, dtype=torch.float32) for g in grid), indexing="ij")
    angles = torch.cat([axis.flatten()[:, None] * scale for axis in axes], dim=1)  # (nW, n * frequencies)
    code = torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(code, (0, dim - code.shape[1])).to(dtype)


class GlobalAttention(nn.Module):
    """Multi-head attention over all global tokens of all windows of an image (G-MSA); other mixers derive from it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def add_position(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return tokens ``(B, nW, T, C)`` with the code of their window's place added."""
        return tokens + sine_position_code(grid, tokens.shape[-1], tokens.device, tokens.dtype)[:, None]

    def exchange(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, ...], return_attention: bool) -> Attended:
        """Return what each query reads, and the weights if asked for; q, k and v are ``(B, heads, nW * T, d)``."""
        # On a CPU, torch's backward pass gives each thread whole heads: two threads take as long for three as for four.
        plain = return_attention or not q.requires_grad or q.device.type != "cpu" or torch.compiler.is_compiling()
        if plain or self.num_heads % torch.get_num_threads() == 0 or q.shape[2] % 2:
            return attend(q, k, v, return_attention=return_attention)
        k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        y, _ = attend(rearrange(q, "b h (half n) d -> b (h half) n d", half=2), k, v)  # (B, 2 heads, nW * T / 2, d)
        return rearrange(y, "b (h half) n d -> b h (half n) d", half=2), None

    def forward(self, tokens: Tensor, grid: tuple[int, ...], return_attention: bool = False) -> Attended:
        """Let every token ``(B, nW, T, C)`` attend to every token; ``grid`` is the windows along each dimension.

        Returns the attended tokens, shaped as ``tokens``, and the weights ``(B, heads, nW * T, nW * T)`` or None.
        """
        qkv = self.qkv(self.add_position(tokens, grid))
        q, k, v = rearrange(qkv, "b w t (three h d) -> three b h (w t) d", three=3, h=self.num_heads)
        y, weights = self.exchange(q, k, v, grid, return_attention)
        return self.proj(rearrange(y, "b h (w t) d -> b w t (h d)", w=tokens.shape[1])), weights

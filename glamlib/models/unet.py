"""The Swin-UNet decoder, and two ways to double a map in it: patch expanding and non-local upsampling (NLU).

Cao et al., "Swin-Unet" (ECCV workshops 2022); with global tokens in its blocks, GLAM-Swin-UNet (Themyr et al., WACV
2023). NLU: Themyr et al., section 3.3: queries come from the skip connection, keys and values from the coarse map.
"""

from collections.abc import Callable
from math import prod

import torch
from einops import rearrange
from timm.layers import DropPath, Mlp, calculate_drop_path_rates, trunc_normal_
from torch import Tensor, nn

from glamlib.layers.attention import Attended, attend
from glamlib.layers.windows import WindowLayout, cached, from_windows, relative_position_index, to_windows
from glamlib.models.config import ModelConfig
from glamlib.models.encoder import Encoder, Stage


class PatchExpand(nn.Module):
    """Split each patch into ``s x s`` by a linear layer: ``(B, H, W, D)`` to ``(B, s H, s W, out_dim)``."""

    def __init__(self, dim: int, out_dim: int, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale**2 * out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Expand; with ``size``, cut to it, because the merging had padded an odd map."""
        x = rearrange(self.expand(x), "b h w (p1 p2 c) -> b (h p1) (w p2) c", p1=self.scale, p2=self.scale)
        return self.norm(x if size is None else x[:, : size[0], : size[1]])


@cached
def fine_to_coarse_index(window: tuple[int, ...], table_window: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the row of the bias table for each (fine query, coarse key) of a window pair, ``(4 P, P)`` integers.

    A query of the fine window, twice as wide, has the offset of the coarse cell that it lies in.
    """
    cells = torch.arange(prod(window), device=device).view(window).repeat_interleave(2, 0).repeat_interleave(2, 1)
    return relative_position_index(window, table_window, device)[cells.flatten()]


class CrossWindowAttention(nn.Module):
    """Attention whose queries come from fine windows, keys and values from the coarse windows at the same place.

    The coarse map has D = ``dim`` channels, the fine map D / 2; ``window_size`` is that of coarse windows.
    """

    def __init__(self, dim: int, num_heads: int, window_size: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.zeros(self.table_rows(), num_heads))
        self.proj_q = nn.Linear(dim // 2, dim)
        self.proj_kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim // 2)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def table_rows(self) -> int:
        return prod(2 * w - 1 for w in self.window_size)

    def index(self, layout: WindowLayout) -> Tensor:
        """Return the rows of the bias table, ``(4 P, P)``."""
        return fine_to_coarse_index(layout.window, self.window_size, self.relative_position_bias_table.device)

    def forward(self, fine: Tensor, coarse: Tensor, layout: WindowLayout, return_attention: bool = False) -> Attended:
        """Return the update of ``fine`` ``(B, nW, 4 P, D / 2)`` from ``coarse`` ``(B, nW, P, D)``.

        ``layout`` is that of the coarse windows. The weights, if asked for, are ``(B, nW, heads, 4 P, P)``.
        """
        q = rearrange(self.proj_q(fine), "b w n (h d) -> (b w) h n d", h=self.num_heads)
        k, v = rearrange(self.proj_kv(coarse), "b w n (two h d) -> two (b w) h n d", two=2, h=self.num_heads)
        bias = self.relative_position_bias_table[self.index(layout)].permute(2, 0, 1)[None]  # (1, heads, 4 P, P)
        y, weights = attend(q, k, v, bias.to(q.dtype), return_attention)  # (B nW, heads, 4 P, d)
        if weights is not None:
            weights = rearrange(weights, "(b w) h n m -> b w h n m", w=fine.shape[1])
        return self.proj(rearrange(y, "(b w) h n d -> b w n (h d)", w=fine.shape[1])), weights


class NonLocalUpsampling(nn.Module):
    """Double a coarse map: patch expanding plus cross-attention from the skip, then an MLP.

    Sizes are those of `CrossWindowAttention`; skip and result have the fine map's, D / 2 channels.
    """

    attention = CrossWindowAttention

    def __init__(
        self, dim: int, num_heads: int, window_size: tuple[int, int], mlp_ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.expand = PatchExpand(dim, dim // 2)
        self.norm1 = nn.LayerNorm(dim)
        self.norm_skip = nn.LayerNorm(dim // 2)
        self.attn = self.attention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim // 2)
        self.mlp = Mlp(dim // 2, int(dim // 2 * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def layout_of(self, x: Tensor) -> WindowLayout:
        return WindowLayout.fit(tuple(x.shape[1:3]), self.window_size, shifted=False)

    def forward(self, x: Tensor, skip: Tensor, trace: dict | None = None) -> Tensor:
        """Return the doubled map ``(B, H', W', D / 2)`` of ``x`` ``(B, H, W, D)`` at the size of ``skip``.

        ``trace`` gets the explicit attention as ``layout`` (coarse) and ``cross`` ``(B, nW, heads, 4 P, P)``.
        """
        size = tuple(skip.shape[1:3])
        coarse = self.layout_of(x)
        fine = WindowLayout(size, tuple(2 * w for w in coarse.window), (0, 0))
        queries = to_windows(self.norm_skip(skip), fine)  # (B, nW, 4 P, D / 2)
        keys = to_windows(self.norm1(x), coarse)  # (B, nW, P, D)
        update, weights = self.attn(queries, keys, coarse, trace is not None)
        if trace is not None:
            trace.update({"layout": coarse, "cross": weights})
        x = self.expand(x, size) + self.drop_path(from_windows(update, fine))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class UNetDecoder(nn.Module):
    """From the encoder's skips to logits at the full resolution of the padded image.

    Every stage mirrors the encoder's of the same resolution; its tokens start anew. ``upsampling`` is
    `NonLocalUpsampling` or a subclass, None for patch expanding alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        make_stage: Callable[..., Stage] = Stage,
        upsampling: Callable[..., NonLocalUpsampling] | None = None,
    ) -> None:
        super().__init__()
        dims, rates = config.dims, calculate_drop_path_rates(config.drop_path, config.depths, stagewise=True)
        levels = range(len(dims) - 2, -1, -1)  # from coarse to fine
        window = (config.window_size,) * 2
        self.ups = nn.ModuleList(
            upsampling(dims[i + 1], config.num_heads[i], window, config.mlp_ratio, rates[i][0])
            if upsampling
            else PatchExpand(dims[i + 1], dims[i])
            for i in levels
        )
        self.concat_back_dim = nn.ModuleList(nn.Linear(2 * dims[i], dims[i]) for i in levels)
        self.layers_up = nn.ModuleList(make_stage(config, i, rates[i]) for i in levels)
        self.norm_up = nn.LayerNorm(dims[0])
        self.up = PatchExpand(dims[0], dims[0], config.patch_size)
        self.output = nn.Conv2d(dims[0], num_classes, 1, bias=False)

    def start_from(self, encoder: Encoder) -> None:
        """Copy the encoder's blocks, but no mixer, to the stages that mirror them, as the released code does."""
        for stage in self.layers_up:
            blocks = encoder.layers[stage.level].blocks.state_dict()
            stage.blocks.load_state_dict({k: v for k, v in blocks.items() if "mixer." not in k}, strict=False)

    def forward(self, features: list[Tensor], traces: list[dict] | None = None) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of features ``(B, C_i, h_i, w_i)``; ``traces`` gets one per NLU."""
        *skips, x = (feature.movedim(1, -1) for feature in features)  # channels-last
        for up, back, stage, skip in zip(self.ups, self.concat_back_dim, self.layers_up, reversed(skips), strict=True):
            if isinstance(up, PatchExpand):
                x = up(x, tuple(skip.shape[1:3]))
            else:
                if traces is not None:
                    traces.append({})
                x = up(x, skip, traces[-1] if traces else None)
            x = stage(back(torch.cat([x, skip], dim=-1)))
        return self.output(self.up(self.norm_up(x)).movedim(-1, 1))

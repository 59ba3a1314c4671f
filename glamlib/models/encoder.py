"""The multi-resolution encoder: patch embedding, stages of blocks, patch merging. Swin, or GLAM with global tokens.

N-dimensional (2D and 3D). Parameter names are timm's (``patch_embed.proj``, ``layers.1.downsample.reduction``, ...), so
that its Swin weights load as they are. Sources: Liu et al., "Swin Transformer" (ICCV 2021), section 3.1; Themyr et al.
(WACV 2023), section 3.1, for the tokens.
"""

from itertools import product

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.block import GlamBlock
from glamlib.layers.windows import WindowLayout

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


def _padding(size: tuple[int, ...], multiple: int) -> list[int]:
    """Return `F.pad`'s widths (last dimension first) that zero-pad the ends of a map to multiples."""
    return [width for s in reversed(size) for width in (0, -s % multiple)]


class PatchEmbed(nn.Module):
    """Non-overlapping patches to channels-last features: ``(B, C_in, *size)`` to ``(B, *ceil(size / patch), C)``."""

    def __init__(self, in_channels: int, dim: int, patch_size: int, ndim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = _CONVOLUTIONS[ndim](in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(F.pad(x, _padding(x.shape[2:], self.patch_size)))  # (B, C, *size)
        return self.norm(x.movedim(1, -1))  # (B, *size, C)


class PatchMerging(nn.Module):
    """Halve the map and double the channels: ``(B, *size, C)`` to ``(B, *ceil(size / 2), 2 C)``."""

    def __init__(self, dim: int, ndim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2**ndim * dim)
        self.reduction = nn.Linear(2**ndim * dim, 2 * dim, bias=False)
        # Swin's order of the corners: the first dimension runs fastest
        self.corners = [corner[::-1] for corner in product((0, 1), repeat=ndim)]

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, [0, 0, *_padding(x.shape[1:-1], 2)])  # the channels come last
        corners = [x[(slice(None), *(slice(start, None, 2) for start in corner))] for corner in self.corners]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))  # (B, *size / 2, 2 C)


class Stage(nn.Module):
    """Blocks on one resolution, after the merging that leads to it; its global tokens start here.

    Every window of every image starts from the same ``num_global_tokens`` learned vectors.
    """

    def __init__(
        self,
        dim: int,
        drop_paths: list[float],
        num_heads: int,
        window_size: tuple[int, ...],
        num_global_tokens: int,
        mixer: str,
        mlp_ratio: float,
        downsample: nn.Module,
    ) -> None:
        super().__init__()
        self.downsample = downsample
        depth = len(drop_paths)
        self.blocks = nn.ModuleList(
            GlamBlock(
                dim,
                num_heads,
                window_size,
                shifted=bool(i % 2),
                mixer=mixer if num_global_tokens else "none",
                is_last=i == depth - 1,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
            )
            for i, drop_path in enumerate(drop_paths)
        )
        self.window_size = window_size
        self.global_tokens = nn.Parameter(torch.zeros(num_global_tokens, dim)) if num_global_tokens else None
        if num_global_tokens:
            trunc_normal_(self.global_tokens, std=0.02)

    def start_tokens(self, x: Tensor) -> Tensor | None:
        """Return the tokens ``(B, nW, T, C)`` with which the windows of the map ``x`` start, None without tokens."""
        if self.global_tokens is None:
            return None
        layout = WindowLayout.fit(tuple(x.shape[1:-1]), self.window_size, shifted=False)
        return self.global_tokens.expand(x.shape[0], layout.num_windows, -1, -1)

    def forward(self, x: Tensor, traces: list[dict] | None = None) -> Tensor:
        x = self.downsample(x)
        tokens = self.start_tokens(x)
        for block in self.blocks:
            trace = None if traces is None else {}
            x, tokens = block(x, tokens, trace)
            if traces is not None:
                traces.append(trace)
        return x


class Encoder(nn.Module):
    """Swin (no global tokens) or GLAM-Swin (some), on maps of 2 or 3 dimensions.

    Args:
        in_channels: channels of the image.
        embed_dim: channels C of the first stage; stage i has ``C * 2**i``.
        depths, num_heads: blocks and attention heads of each stage.
        window_size: side of a window in patches, the same in all dimensions and stages.
        patch_size: side of a patch in pixels.
        num_global_tokens: tokens per window.
        mixer: what exchanges between windows (`glamlib.layers.mixers`).
        mlp_ratio, drop_path: as in `GlamBlock`; drop_path is the last block's, earlier ones rise to it linearly.
        ndim: dimensions of the map.
        weight_init: of the linear layers: "swin" (normal, deviation 0.02) or "xavier" (Glorot's uniform). At Nano's 32
            channels 0.02 leaves all attention logits near zero, and training stands still for hundreds of steps.
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 7,
        patch_size: int = 4,
        num_global_tokens: int = 0,
        mixer: str = "gmsa",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        ndim: int = 2,
        weight_init: str = "swin",
    ) -> None:
        super().__init__()
        self.dims = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch_size, ndim)
        rates = [drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
        self.layers = nn.ModuleList(
            Stage(
                dim,
                rates[sum(depths[:i]) : sum(depths[: i + 1])],
                num_heads[i],
                (window_size,) * ndim,
                num_global_tokens,
                mixer,
                mlp_ratio,
                downsample=PatchMerging(self.dims[i - 1], ndim) if i else nn.Identity(),
            )
            for i, dim in enumerate(self.dims)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in self.dims)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # norms and the patch embedding keep PyTorch's initialisation
                if weight_init == "xavier":
                    nn.init.xavier_uniform_(module.weight)
                else:
                    trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def stages(self, x: Tensor, traces: list[dict] | None = None) -> list[Tensor]:
        """Return each stage's output before its norm, channels-last: stage i is ``(B, *size / (patch * 2**i), C_i)``.

        With ``traces`` (an empty list), one dict a block is appended: see `GlamBlock.forward`.
        """
        x = self.patch_embed(x)
        outputs = []
        for stage in self.layers:
            x = stage(x, traces)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature pyramid of ``(B, in_channels, *size)``, highest resolution first, channels-first."""
        return [norm(y).movedim(-1, 1) for norm, y in zip(self.norms, self.stages(x), strict=True)]

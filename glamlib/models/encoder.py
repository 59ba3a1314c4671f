"""The multi-resolution encoder: patch embedding, stages, patch merging. Swin, or GLAM with global tokens.

N-dimensional (2D and 3D). Parameter names are timm's (``patch_embed.proj``, ``layers.1.downsample.reduction``, ...), so
that its Swin weights load as they are. Sources: Liu et al., "Swin Transformer" (ICCV 2021), section 3.1; Themyr et al.
(WACV 2023), section 3.1, for the tokens.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.models.stage import Stage

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


def padding_to(size: tuple[int, ...], multiples: tuple[int, ...]) -> list[int]:
    """Return `F.pad`'s widths (last dimension first) that zero-pad the ends of a map to multiples."""
    return [width for s, m in reversed(list(zip(size, multiples, strict=True))) for width in (0, -s % m)]


class PatchEmbed(nn.Module):
    """Non-overlapping patches to channels-last features: ``(B, C_in, *size)`` to ``(B, *ceil(size / patch), C)``."""

    def __init__(self, in_channels: int, dim: int, patch_size: int, ndim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = _CONVOLUTIONS[ndim](in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(F.pad(x, padding_to(x.shape[2:], (self.patch_size,) * (x.ndim - 2))))  # (B, C, *size)
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
        x = F.pad(x, [0, 0, *padding_to(x.shape[1:-1], (2,) * (x.ndim - 2))])  # the channels come last
        corners = [x[(slice(None), *(slice(start, None, 2) for start in corner))] for corner in self.corners]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))  # (B, *size / 2, 2 C)


def stage_drop_paths(drop_path: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Return each block's drop path rate, stage by stage: from 0 linearly to ``drop_path`` at the last block."""
    last = max(sum(depths) - 1, 1)
    return [[drop_path * (sum(depths[:i]) + j) / last for j in range(depth)] for i, depth in enumerate(depths)]


class Encoder(nn.Module):
    """Swin (no global tokens) or GLAM-Swin (some), on maps of 2 or 3 dimensions.

    Args:
        in_channels: channels of the image.
        embed_dim: channels C of the first stage; stage i has ``C * 2**i``.
        depths, num_heads: blocks and attention heads of each stage.
        window_size: side of a window in patches, the same in all dimensions; one for all stages or one a stage.
        patch_size: side of a patch in pixels.
        num_global_tokens: tokens per window, one number for all stages or one a stage.
        mixer: what exchanges between windows (`glamlib.layers.mixers`).
        mlp_ratio, drop_path: as in `GlamBlock`; drop_path is the last block's, earlier ones rise to it linearly.
        ndim: dimensions of the map.
        skips: whether to return what a UNet decoder wants instead of a pyramid: see `forward`.
        make_stage: `Stage` or one like it.
        make_embedding: patches of (in_channels, embed_dim); None for `PatchEmbed`.
        make_merging: halves the map of a stage of so many channels; None for `PatchMerging`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int | tuple[int, ...] = 7,
        patch_size: int = 4,
        num_global_tokens: int | tuple[int, ...] = 0,
        mixer: str = "gmsa",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        ndim: int = 2,
        skips: bool = False,
        make_stage: Callable[..., Stage] = Stage,
        make_embedding: Callable[[int, int], nn.Module] | None = None,
        make_merging: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        make_embedding = make_embedding or partial(PatchEmbed, patch_size=patch_size, ndim=ndim)
        make_merging = make_merging or partial(PatchMerging, ndim=ndim)
        self.dims = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.skips = skips
        self.patch_embed = make_embedding(in_channels, embed_dim)
        rates = stage_drop_paths(drop_path, depths)
        tokens = (num_global_tokens,) * len(depths) if isinstance(num_global_tokens, int) else num_global_tokens
        windows = (window_size,) * len(depths) if isinstance(window_size, int) else window_size
        self.layers = nn.ModuleList(
            make_stage(
                dim=dim,
                drop_paths=rates[i],
                num_heads=num_heads[i],
                window_size=(windows[i],) * ndim,
                num_global_tokens=tokens[i],
                mixer=mixer,
                mlp_ratio=mlp_ratio,
                level=i,
                downsample=make_merging(self.dims[i - 1]) if i else None,
            )
            for i, dim in enumerate(self.dims)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in (self.dims[-1:] if skips else self.dims))

    def stages(self, x: Tensor, traces: list[dict] | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Return each stage's input and output, without norms, channels-last: ``(B, *size / (patch * 2**i), C_i)``.

        With ``traces`` (an empty list), one dict a block is appended: see `GlamBlock.forward`.
        """
        x = self.patch_embed(x)
        inputs, outputs = [], []
        for stage in self.layers:
            inputs.append(stage.downsample(x))
            x = stage(inputs[-1], traces)
            outputs.append(x)
        return inputs, outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of ``(B, in_channels, *size)``, highest resolution first, channels-first.

        Each stage's output, normalised; with ``skips``, the inputs of all stages but the last, as they are, and the
        last stage's output, normalised.
        """
        inputs, outputs = self.stages(x)
        if self.skips:
            features = [*inputs[:-1], self.norms[0](outputs[-1])]
        else:
            features = [norm(output) for norm, output in zip(self.norms, outputs, strict=True)]
        return [feature.movedim(-1, 1) for feature in features]


def init_linear(module: nn.Module, weight_init: str) -> None:
    """Initialise all linear layers: "swin" (normal, deviation 0.02) or "xavier" (Glorot's uniform); biases 0.

    Norms and convolutions keep theirs. At Nano's 32 channels a deviation of 0.02 leaves all attention logits near zero,
    and training stands still for hundreds of steps.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if weight_init == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

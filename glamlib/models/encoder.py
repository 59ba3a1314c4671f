"""The multi-resolution encoder: patch embedding, stages, patch merging. Swin, or GLAM with global tokens.

Parameter names are timm's, so its Swin weights load as they are. Sources: Liu et al., "Swin Transformer" (ICCV 2021),
section 3.1; Themyr et al. (WACV 2023), section 3.1, for the tokens.
"""

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn

from glamlib.layers.windows import padding_to
from glamlib.models.config import StagedConfig
from glamlib.models.stage import Stage


class PatchEmbed(nn.Module):
    """Turn images ``(B, C_in, H, W)`` into channels-last features ``(B, ceil(H / patch), ceil(W / patch), C)``."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(F.pad(x, padding_to(x.shape[2:], (self.patch_size,) * 2)))  # (B, C, h, w)
        return self.norm(x.movedim(1, -1))  # (B, h, w, C)


class PatchMerging(nn.Module):
    """Halve the map and double the channels: ``(B, H, W, C)`` to ``(B, ceil(H / 2), ceil(W / 2), 2 C)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, *padding_to(x.shape[1:3], (2, 2))))
        # Swin's order of the four corners: down, then right
        x = rearrange(x, "b (h down) (w right) c -> b h w (right down c)", down=2, right=2)
        return self.reduction(self.norm(x))


def stage_drop_paths(drop_path: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Return each block's drop path rate, stage by stage: from 0 linearly to ``drop_path`` at the last block."""
    last = max(sum(depths) - 1, 1)
    return [[drop_path * (sum(depths[:i]) + j) / last for j in range(depth)] for i, depth in enumerate(depths)]


class Encoder(nn.Module):
    """Swin (no global tokens) or GLAM-Swin; with another ``patch_embed`` and merging, nnFormer's encoder.

    With ``skips`` it returns what a UNet decoder needs instead of a pyramid. ``make_merging`` takes the channels of the
    stage whose map it halves.
    """

    def __init__(
        self,
        config: StagedConfig,
        in_channels: int = 3,
        make_stage: Callable[..., Stage] = Stage,
        skips: bool = False,
        patch_embed: nn.Module | None = None,
        make_merging: Callable[[int], nn.Module] = PatchMerging,
    ) -> None:
        super().__init__()
        self.dims = config.dims
        self.skips = skips
        self.patch_embed = patch_embed or PatchEmbed(in_channels, config.embed_dim, config.patch_size)
        self.layers = nn.ModuleList(
            make_stage(
                **config.stage(level),
                drop_paths=rates,
                downsample=make_merging(self.dims[level - 1]) if level else None,
            )
            for level, rates in enumerate(stage_drop_paths(config.drop_path, config.depths))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in (self.dims[-1:] if skips else self.dims))

    def stages(self, x: Tensor, traces: list[dict] | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Return each stage's input and output before any norm, channels-last: ``(B, *size / (patch * 2**i), C_i)``.

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
        """Return the normalised output of each stage, channels-first, highest resolution first.

        With ``skips``, all but the last level are the stages' inputs instead, as they are.
        """
        inputs, outputs = self.stages(x)
        if self.skips:
            features = [*inputs[:-1], self.norms[0](outputs[-1])]
        else:
            features = [norm(output) for norm, output in zip(self.norms, outputs, strict=True)]
        return [feature.movedim(-1, 1) for feature in features]


def init_linear(module: nn.Module, weight_init: str) -> None:
    """Initialise all linear layers: "swin" (normal, deviation 0.02) or "xavier" (Glorot's uniform); biases 0.

    With Nano's 32 channels, "swin" leaves all attention logits near zero, and training stalls for hundreds of steps.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if weight_init == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

"""The multi-resolution encoder: patch embedding, stages, patch merging. Swin, or GLAM with global tokens.

A stage is one resolution: blocks on windows, every second time shifted, and their global tokens.
Parameter names are timm's, so its Swin weights load as they are. Sources: Liu et al., "Swin Transformer" (ICCV 2021),
section 3.1; Themyr et al. (WACV 2023), section 3.1, for the tokens.
"""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers import PatchEmbed, calculate_drop_path_rates, trunc_normal_
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glamlib.layers.block import GlamBlock
from glamlib.layers.mixers import acts_on_patches
from glamlib.models.config import StagedConfig


class Stage(nn.Module):
    """Blocks on one resolution, after the merging that leads to it; its global tokens start here.

    All windows start from the same learned vectors; without tokens no mixer of tokens is built. There is a block for
    each rate in ``drop_paths``. ``level`` 0 has the highest resolution. The first and a decoder's lack ``downsample``.
    """

    def __init__(
        self,
        config: StagedConfig,
        level: int,
        drop_paths: list[float],
        downsample: nn.Module | None = None,
        make_block: Callable[..., GlamBlock] = GlamBlock,
    ) -> None:
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.window_size = (config.per_stage("window_size")[level],) * config.ndim
        self.level = level
        self.grad_checkpointing = config.grad_checkpointing
        dim, num_tokens = config.dims[level], config.per_stage("num_global_tokens")[level]
        self.global_tokens = nn.Parameter(trunc_normal_(torch.zeros(num_tokens, dim), std=0.02)) if num_tokens else None
        self.blocks = nn.ModuleList(
            make_block(
                dim=dim,
                num_heads=config.num_heads[level],
                window_size=self.window_size,
                shifted=bool(i % 2),
                mixer=config.mixer if num_tokens or acts_on_patches(config.mixer) else "none",
                is_last=i == len(drop_paths) - 1,
                mlp_ratio=config.mlp_ratio,
                drop_path=drop_path,
                mask_tokens=config.mask_tokens,
            )
            for i, drop_path in enumerate(drop_paths)
        )

    def forward(self, x: Tensor, traces: list[dict] | None = None) -> Tensor:
        """Apply the blocks, not the merging, to a map ``(B, *size, C)``; ``traces`` gets one dict a block."""
        tokens = self.global_tokens
        if tokens is not None:
            tokens = tokens.expand(x.shape[0], self.blocks[0].layout_of(x).num_windows, -1, -1)  # (B, nW, T, C)
        for block in self.blocks:
            if traces is not None:
                traces.append({})
                x, tokens = block(x, tokens, traces[-1])
            elif self.grad_checkpointing and torch.is_grad_enabled():
                x, tokens = checkpoint(block, x, tokens, use_reentrant=False)
            else:
                x, tokens = block(x, tokens)
        return x


class Encoder(nn.Module):
    """Swin (no global tokens) or GLAM-Swin; with another ``patch_embed`` and merging, nnFormer's encoder.

    With ``skips`` it returns what a UNet decoder needs. ``make_merging`` takes the channels of the map that it halves.
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
        # timm's, with zeros beyond a border that is no whole patch
        embed = partial(PatchEmbed, None, norm_layer=nn.LayerNorm, output_fmt="NHWC", dynamic_img_pad=True)
        self.patch_embed = patch_embed or embed(config.patch_size, in_channels, config.embed_dim)
        self.layers = nn.ModuleList(
            make_stage(config, level, rates, make_merging(self.dims[level - 1]) if level else None)
            for level, rates in enumerate(calculate_drop_path_rates(config.drop_path, config.depths, stagewise=True))
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
    initialise = nn.init.xavier_uniform_ if weight_init == "xavier" else partial(trunc_normal_, std=0.02)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            initialise(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

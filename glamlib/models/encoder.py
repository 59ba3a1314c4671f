"""The multi-resolution encoder: patch embedding, stages, patch merging. Swin, or GLAM with global tokens.

Parameter names are timm's, so its Swin weights load as they are. Sources: Liu et al., "Swin Transformer" (ICCV 2021),
section 3.1; Themyr et al. (WACV 2023), section 3.1, for the tokens.
"""

from collections.abc import Callable
from functools import partial

from timm.layers import PatchEmbed, calculate_drop_path_rates, trunc_normal_
from timm.models.swin_transformer import PatchMerging
from torch import Tensor, nn

from glamlib.models.config import StagedConfig
from glamlib.models.stage import Stage


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
        # timm's, with zeros beyond a border that is no whole patch
        embed = partial(PatchEmbed, None, norm_layer=nn.LayerNorm, output_fmt="NHWC", dynamic_img_pad=True)
        self.patch_embed = patch_embed or embed(config.patch_size, in_channels, config.embed_dim)
        self.layers = nn.ModuleList(
            make_stage(
                **config.stage(level),
                drop_paths=rates,
                downsample=make_merging(self.dims[level - 1]) if level else None,
            )
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
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if weight_init == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

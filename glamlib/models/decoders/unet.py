"""The Swin-UNet decoder: up from the last stage, a skip connection and a stage of blocks at every resolution.

Cao et al., "Swin-Unet" (ECCV workshops 2022); with global tokens in its blocks, GLAM-Swin-UNet (Themyr et al., WACV
2023). Skips are the inputs of the encoder's stages. Every stage of the decoder mirrors the encoder's of the same
resolution: depth, heads, tokens; its tokens start anew.
"""

import torch
from torch import Tensor, nn

from glamlib.models.stage import Stage

from .upsampling import NonLocalUpsampling, PatchExpand


class UNetDecoder(nn.Module):
    """From the skips and the last stage's output to logits at the full resolution of the padded image.

    Args:
        stages: how a decoder stage of each level is made (level to `Stage`), highest resolution first.
        dims: channels of the encoder's stages.
        num_heads, drop_paths: of the encoder's stages, for non-local upsampling.
        window_size: side of a window in patches.
        patch_size: side of a patch in pixels; the last expansion undoes the patch embedding.
        num_classes: channels of the logits.
        upsampling: `NonLocalUpsampling` or one like it; None for patch expanding alone.
    """

    def __init__(
        self,
        stages: list[Stage],
        dims: tuple[int, ...],
        num_heads: tuple[int, ...],
        drop_paths: list[float],
        window_size: tuple[int, int],
        patch_size: int,
        num_classes: int,
        mlp_ratio: float = 4.0,
        upsampling: type[NonLocalUpsampling] | None = None,
    ) -> None:
        super().__init__()
        levels = range(len(dims) - 2, -1, -1)  # from coarse to fine
        self.ups = nn.ModuleList(
            upsampling(dims[i + 1], num_heads[i], window_size, mlp_ratio, drop_paths[i])
            if upsampling
            else PatchExpand(dims[i + 1], dims[i])
            for i in levels
        )
        self.concat_back_dim = nn.ModuleList(nn.Linear(2 * dims[i], dims[i]) for i in levels)
        self.layers_up = nn.ModuleList(stages[i] for i in levels)
        self.norm_up = nn.LayerNorm(dims[0])
        self.up = PatchExpand(dims[0], dims[0], patch_size)
        self.output = nn.Conv2d(dims[0], num_classes, 1, bias=False)

    def forward(self, features: list[Tensor], traces: list[dict] | None = None) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of features ``(B, C_i, h_i, w_i)``, the last from the last stage.

        With ``traces`` (an empty list), one dict a non-local upsampling is appended.
        """
        *skips, x = (feature.movedim(1, -1) for feature in features)  # channels-last
        for up, back, stage, skip in zip(self.ups, self.concat_back_dim, self.layers_up, reversed(skips), strict=True):
            if isinstance(up, PatchExpand):
                x = up(x, tuple(skip.shape[1:3]))
            else:
                trace = None if traces is None else {}
                x = up(x, skip, trace)
                if traces is not None:
                    traces.append(trace)
            x = stage(back(torch.cat([x, skip], dim=-1)))
        return self.output(self.up(self.norm_up(x)).movedim(-1, 1))

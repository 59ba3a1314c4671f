"""PVT (v1): a pyramid of transformers whose keys and values are reduced in space. Our composition of timm's parts.

Source: Wang et al., "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions" (ICCV
2021); whai362/PVT, classification/pvt.py. Its block is the one that Twins-PCPVT took over, so timm's is used.
"""

from functools import partial

import torch
from einops import rearrange
from timm.layers import trunc_normal_
from timm.models.twins import Block, PatchEmbed
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.from_timm import SR_RATIOS
from glamlib.backbones.pyramid import STRIDES, Backbone, Stages
from glamlib.models.encoder import stage_drop_paths
from glamlib.models.upernet import resize

IMAGE_SIZE = 224  # side in pixels of the image that the table of positions is for


class PVTStage(nn.Module):
    """Patches of ``patch`` x ``patch``, learned positions, blocks: ``(B, C_in, H, W)`` to ``(B, C, H/patch, W/patch)``.

    Positions are learned for a map of ``grid`` x ``grid`` and interpolated to others. The class token that PVT has in
    its last stage is left out, as PVT's own code for dense prediction does.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch: int,
        grid: int,
        num_heads: int,
        mlp_ratio: int,
        sr_ratio: int,
        drop_paths: list[float],
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(grid * patch, patch, in_channels, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, grid, grid))
        trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                mlp_ratio,
                drop_path=drop_path,
                sr_ratio=sr_ratio,
                ws=1,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
            )
            for drop_path in drop_paths
        )

    def forward(self, x: Tensor) -> Tensor:
        x, size = self.patch_embed(x)  # (B, h * w, C)
        x = x + resize(self.pos_embed, size).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, size)
        return rearrange(x, "b (h w) c -> b c h w", h=size[0]).contiguous()


def pvt(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return PVT; its maps are not normalised."""
    dims, rates = config.embed_dims, stage_drop_paths(config.drop_path, config.depths)
    stages = (
        PVTStage(
            in_channels if i == 0 else dims[i - 1],
            dims[i],
            4 if i == 0 else 2,
            IMAGE_SIZE // STRIDES[i],
            config.num_heads[i],
            config.mlp_ratios[i],
            SR_RATIOS[i],
            rates[i],
        )
        for i in range(4)
    )
    return Backbone(Stages(stages), dims)

"""PVT (v1): a pyramid of transformers whose keys and values are reduced in space. Our composition of timm's parts.

Source: Wang et al., "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions" (ICCV
2021); whai362/PVT, classification/pvt.py. Twins-PCPVT took its block over, so timm's is used.
"""

import torch
from timm.layers import trunc_normal_
from timm.models.twins import GlobalSubSampleAttn, PatchEmbed
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import STRIDES, BlockStage, block_of
from glamlib.models.upernet import resize

IMAGE_SIZE = 224  # side in pixels of the images that the positions are learned for
SR_RATIOS = (8, 4, 2, 1)  # how far each stage reduces keys and values along each side


class PVTStage(BlockStage):
    """Patches, learned positions (interpolated to the map), blocks.

    PVT's last stage has a class token; as in its own code for dense prediction, it is left out here.
    """

    def __init__(self, config: BackboneConfig, i: int, in_channels: int, drop_paths: list[float]) -> None:
        super().__init__()
        dim, patch, grid = config.embed_dims[i], 4 if i == 0 else 2, IMAGE_SIZE // STRIDES[i]
        self.patch_embed = PatchEmbed(grid * patch, patch, in_channels, dim)
        self.pos_embed = nn.Parameter(trunc_normal_(torch.zeros(1, dim, grid, grid), std=0.02))
        self.blocks = nn.ModuleList(
            block_of(GlobalSubSampleAttn(dim, config.num_heads[i], sr_ratio=SR_RATIOS[i]), config, i, rate)
            for rate in drop_paths
        )

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, size = self.patch_embed(x)  # (B, h * w, C)
        return x + resize(self.pos_embed, size).flatten(2).transpose(1, 2), size

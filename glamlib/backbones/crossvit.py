"""CrossViT: two transformers on patches of two sizes, whose class tokens visit each other. timm's, at any size.

Source: Chen et al., "CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification" (ICCV 2021);
timm models/crossvit.py, which takes one size only.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import resample_abs_pos_embed
from timm.models.crossvit import CrossVit
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import Backbone
from glamlib.models.upernet import resize

PATCHES = (12, 16)
SCALES = ((1, 1), (14, 15))  # of the image for each branch, as fractions: 224 pixels beside the other's 240
ENCODERS = 3  # multi-scale encoders, one after another


class CrossViTBody(nn.Module):
    """Both branches' last maps, normalised, brought to stride 16 and put side by side.

    A branch sees the image resized to whole patches, as near to its scale as can be from above; positions are
    interpolated.
    """

    def __init__(self, net: CrossVit) -> None:
        super().__init__()
        self.net = net
        last = net.blocks[-1]
        last.projs = last.fusion = last.revert_projs = None  # they change class tokens, which nothing reads after them

    def embed(self, x: Tensor, branch: int) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens ``(B, 1 + h * w, C)`` of one branch, class token first, and (h, w)."""
        patch = PATCHES[branch]
        over, under = SCALES[branch]
        grid = tuple(-(-size * over // (under * patch)) for size in x.shape[2:])  # patches along each side, rounded up
        size = [patch * cells for cells in grid]
        if tuple(x.shape[2:]) != tuple(size):
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        x = self.net.patch_embed[branch].proj(x).flatten(2).transpose(1, 2)
        token, position = getattr(self.net, f"cls_token_{branch}"), getattr(self.net, f"pos_embed_{branch}")
        x = torch.cat([token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + resample_abs_pos_embed(position, list(grid)), grid

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C_small + C_large, H / 16, W / 16)``."""
        branches, grids = zip(*(self.embed(x, branch) for branch in range(2)), strict=True)
        for encoder in self.net.blocks[:-1]:
            branches = encoder(branches)
        branches = [block(tokens) for block, tokens in zip(self.net.blocks[-1].blocks, branches, strict=True)]
        stride16 = tuple(size // 16 for size in x.shape[2:])
        maps = []
        for tokens, norm, (rows, _) in zip(branches, self.net.norm, grids, strict=True):
            tokens = rearrange(norm(tokens)[:, 1:], "b (h w) c -> b c h w", h=rows)
            maps.append(resize(tokens, stride16))
        return torch.cat(maps, dim=1)


def crossvit(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return CrossViT."""
    net = CrossVit(
        img_size=240,
        img_scale=[over / under for over, under in SCALES],
        patch_size=PATCHES,
        in_chans=in_channels,
        num_classes=0,
        embed_dim=config.embed_dims,
        depth=((*config.depths, 0),) * ENCODERS,  # 0: one cross-attention an encoder
        num_heads=config.num_heads,
        mlp_ratio=(*config.mlp_ratios, 1),
        drop_path_rate=config.drop_path,
    )
    return Backbone(CrossViTBody(net), sum(config.embed_dims))

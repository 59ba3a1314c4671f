"""TNT: patches as sentences of small patches, a transformer inside each. timm's network, at any size.

Source: Han et al., "Transformer in Transformer" (NeurIPS 2021); timm models/tnt.py, which takes one size only.
"""

import torch
from einops import rearrange
from timm.layers import resample_abs_pos_embed
from timm.models.tnt import TNT
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import Backbone

PATCH = 16


class TNTBody(nn.Module):
    """The last map of the outer transformer, normalised; positions of patches are interpolated."""

    def __init__(self, net: TNT) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H / 16, W / 16)``."""
        net = self.net
        batch, rows, columns = x.shape[0], x.shape[2] // PATCH, x.shape[3] // PATCH
        patches = rearrange(x, "b c (h p) (w q) -> (b h w) c p q", p=PATCH, q=PATCH)
        inner = net.pixel_embed.proj(patches) + net.pixel_pos  # (B * h * w, C_in, 4, 4)
        inner = inner.flatten(2).transpose(1, 2)  # (B * h * w, 16, C_in)
        outer = net.norm2_proj(net.proj(net.norm1_proj(inner.reshape(batch, rows * columns, -1))))
        outer = torch.cat([net.cls_token.expand(batch, -1, -1), outer], dim=1)  # (B, 1 + h * w, C)
        outer = outer + resample_abs_pos_embed(net.patch_pos, [rows, columns])
        for block in net.blocks:
            inner, outer = block(inner, outer)
        return rearrange(net.norm(outer)[:, 1:], "b (h w) c -> b c h w", h=rows)


def tnt(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return TNT."""
    net = TNT(
        in_chans=in_channels,
        num_classes=0,
        inner_dim=config.embed_dims[0],
        embed_dim=config.embed_dims[1],
        depth=config.depths[0],
        num_heads_inner=config.num_heads[0],
        num_heads_outer=config.num_heads[1],
        mlp_ratio=config.mlp_ratios[0],
        drop_path_rate=config.drop_path,
    )
    return Backbone(TNTBody(net), config.embed_dims[1])

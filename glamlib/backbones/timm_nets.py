"""timm's networks at any size: Twins and PVT v2 as they are; ViT, TNT and CrossViT with interpolated positions.

Sources: Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers" (NeurIPS 2021); Wang et
al., "PVT v2: Improved Baselines with Pyramid Vision Transformer" (CVMJ 2022); Dosovitskiy et al., "An Image is Worth
16x16 Words" (ICLR 2021); Han et al., "Transformer in Transformer" (NeurIPS 2021); Chen et al., "CrossViT:
Cross-Attention Multi-Scale Vision Transformer for Image Classification" (ICCV 2021).
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import resample_abs_pos_embed
from timm.models.crossvit import CrossVit
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.tnt import TNT
from timm.models.twins import Twins
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.t2t_vit import TokensToToken, sinusoid
from glamlib.models.upernet import resize


def _common(config: BackboneConfig, in_channels: int) -> dict[str, object]:
    return {"in_chans": in_channels, "num_classes": 0, "drop_path_rate": config.drop_path}


def _one_scale(config: BackboneConfig, in_channels: int) -> dict[str, object]:
    sizes = {"embed_dim": config.embed_dims[-1], "depth": config.depths[0], "mlp_ratio": config.mlp_ratios[0]}
    return _common(config, in_channels) | sizes


class TimmPyramid(nn.Module):
    """Twins-PCPVT, Twins-SVT or PVT v2, whose maps alone are normalised."""

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__()
        self.dims = config.embed_dims
        sizes = {name: getattr(config, name) for name in ("embed_dims", "depths", "num_heads", "mlp_ratios")}
        sizes |= _common(config, in_channels)
        if config.backbone == "pvt_v2":
            self.net = PyramidVisionTransformerV2(**sizes)
        else:
            self.net = Twins(**sizes, wss=(config.window_size,) * 4 if config.backbone == "twins_svt" else None)
        self.net.prune_intermediate_layers(4, prune_norm=True)  # all four stages, without the classifier's norm

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the map after each stage."""
        return self.net.forward_intermediates(x, intermediates_only=True)


class ViTBody(nn.Module):
    """The plain ViT: patches of 16 pixels, full attention, one scale. T2T-ViT: with its own patches and positions."""

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__()
        *token_dim, self.dims = config.embed_dims
        sizes = _one_scale(config, in_channels) | {"num_heads": config.num_heads[0]}
        if token_dim:
            sizes |= {"embed_layer": partial(TokensToToken, token_dim=token_dim[0])}
            sizes |= {"qkv_bias": False, "norm_layer": nn.LayerNorm}  # epsilon 1e-5, as published
        self.net = VisionTransformer(dynamic_img_size=True, **sizes)
        if token_dim:
            length = self.net.pos_embed.shape[1]
            del self.net.pos_embed
            self.net.register_buffer("pos_embed", sinusoid(length, self.dims), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last map, normalised, ``(B, C, H / 16, W / 16)``."""
        return self.net.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]


class TNTBody(nn.Module):
    """TNT: an outer transformer on patches of 16 pixels, and an inner one on the 4 x 4 small patches of each."""

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__()
        (inner, self.dims), heads = config.embed_dims, config.num_heads
        sizes = _one_scale(config, in_channels) | {"num_heads_inner": heads[0], "num_heads_outer": heads[1]}
        self.net = TNT(inner_dim=inner, **sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last map of the outer transformer, normalised, ``(B, C, H / 16, W / 16)``."""
        net, batch, grid = self.net, len(x), [size // 16 for size in x.shape[2:]]
        patches = rearrange(x, "b c (h p) (w q) -> (b h w) c p q", p=16, q=16)
        inner = net.pixel_embed.proj(patches) + net.pixel_pos  # (B * h * w, C_in, 4, 4)
        inner = inner.flatten(2).transpose(1, 2)  # (B * h * w, 16, C_in)
        outer = net.norm2_proj(net.proj(net.norm1_proj(inner.reshape(batch, grid[0] * grid[1], -1))))
        outer = torch.cat([net.cls_token.expand(batch, -1, -1), outer], dim=1)  # (B, 1 + h * w, C)
        outer = outer + resample_abs_pos_embed(net.patch_pos, grid)
        for block in net.blocks:
            inner, outer = block(inner, outer)
        return rearrange(net.norm(outer)[:, 1:], "b (h w) c -> b c h w", h=grid[0])


class CrossViTBody(nn.Module):
    """CrossViT: two transformers on patches of 12 and 16 pixels, which exchange their class tokens."""

    patches = (12, 16)
    cells = (20, 14)  # patches along 240 pixels: the branch of large patches sees the image a little smaller

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__()
        self.dims = sum(config.embed_dims)
        self.net = CrossVit(
            img_size=240,
            img_scale=[p * n / 240 for p, n in zip(self.patches, self.cells, strict=True)],
            patch_size=self.patches,
            embed_dim=config.embed_dims,
            depth=((*config.depths, 0),) * 3,  # three encoders, each with one cross-attention (0 in timm's notation)
            num_heads=config.num_heads,
            mlp_ratio=(*config.mlp_ratios, 1),
            **_common(config, in_channels),
        )
        last = self.net.blocks[-1]
        last.projs = last.fusion = last.revert_projs = None  # they change class tokens, which nothing reads after them

    def embed(self, x: Tensor, branch: int) -> tuple[Tensor, list[int]]:
        """Return the tokens ``(B, 1 + h * w, C)`` of one branch, class token first, and [h, w]."""
        net, grid = self.net, [-(-size * self.cells[branch] // 240) for size in x.shape[2:]]  # whole patches
        size = [self.patches[branch] * cells for cells in grid]
        if list(x.shape[2:]) != size:
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        x = net.patch_embed[branch].proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([getattr(net, f"cls_token_{branch}").expand(len(x), -1, -1), x], dim=1)
        return x + resample_abs_pos_embed(getattr(net, f"pos_embed_{branch}"), grid), grid

    def forward(self, x: Tensor) -> Tensor:
        """Return both branches' last maps, normalised and resized: ``(B, C_small + C_large, H / 16, W / 16)``."""
        branches, grids = zip(*(self.embed(x, branch) for branch in range(2)), strict=True)
        for encoder in self.net.blocks[:-1]:
            branches = encoder(branches)
        branches = [block(tokens) for block, tokens in zip(self.net.blocks[-1].blocks, branches, strict=True)]
        maps = [
            rearrange(norm(tokens)[:, 1:], "b (h w) c -> b c h w", h=grid[0])
            for norm, tokens, grid in zip(self.net.norm, branches, grids, strict=True)
        ]
        return torch.cat([resize(level, tuple(size // 16 for size in x.shape[2:])) for level in maps], dim=1)

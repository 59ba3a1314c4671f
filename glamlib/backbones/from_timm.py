"""Backbones that timm has and that take maps of any size as they are: Twins, PVT v2, and the plain ViT.

Sources: Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers" (NeurIPS 2021); Wang et
al., "PVT v2: Improved Baselines with Pyramid Vision Transformer" (CVMJ 2022); Dosovitskiy et al., "An Image is Worth
16x16 Words" (ICLR 2021).
"""

from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.twins import Twins
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import Backbone

SR_RATIOS = (8, 4, 2, 1)  # of keys and values in PVT's stages, along each side; PVT v2's and Twins' too


class TimmStages(nn.Module):
    """The maps of all stages of one of timm's networks, channels-first. Twins' are not normalised, PVT v2's are."""

    def __init__(self, net: Twins | PyramidVisionTransformerV2) -> None:
        super().__init__()
        self.net = net
        net.prune_intermediate_layers(4, prune_norm=True)  # all four stages; the classifier's norm goes

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.net.forward_intermediates(x, intermediates_only=True)


class PlainViT(nn.Module):
    """The last map of timm's ViT, normalised; positions are interpolated."""

    def __init__(self, net: VisionTransformer) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]


def twins(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return Twins-PCPVT (global attention to reduced keys in every block) or Twins-SVT (in every second block)."""
    net = Twins(
        in_chans=in_channels,
        num_classes=0,
        embed_dims=config.embed_dims,
        depths=config.depths,
        num_heads=config.num_heads,
        mlp_ratios=config.mlp_ratios,
        sr_ratios=SR_RATIOS,
        wss=(config.window_size,) * 4 if config.backbone == "twins_svt" else None,
        drop_path_rate=config.drop_path,
    )
    return Backbone(TimmStages(net), config.embed_dims)


def pvt_v2(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return PVT v2: overlapping patches, keys reduced by convolutions, depth-wise convolutions in the MLPs."""
    net = PyramidVisionTransformerV2(
        in_chans=in_channels,
        num_classes=0,
        embed_dims=config.embed_dims,
        depths=config.depths,
        num_heads=config.num_heads,
        mlp_ratios=config.mlp_ratios,
        sr_ratios=SR_RATIOS,
        drop_path_rate=config.drop_path,
    )
    return Backbone(TimmStages(net), config.embed_dims)


def vit(config: BackboneConfig, in_channels: int) -> Backbone:
    """Return the plain ViT: patches of 16 pixels, full attention, one scale."""
    net = VisionTransformer(
        in_chans=in_channels,
        num_classes=0,
        embed_dim=config.embed_dims[0],
        depth=config.depths[0],
        num_heads=config.num_heads[0],
        mlp_ratio=config.mlp_ratios[0],
        drop_path_rate=config.drop_path,
        dynamic_img_size=True,
    )
    return Backbone(PlainViT(net), config.embed_dims[0])

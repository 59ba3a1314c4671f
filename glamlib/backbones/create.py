"""create_backbone: a backbone by name. BackboneSegmenter: one under UPerNet."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from glamlib.backbones.config import BACKBONES, BackboneConfig
from glamlib.backbones.cvt import CvTStage
from glamlib.backbones.pvt import PVTStage
from glamlib.backbones.pyramid import STRIDES, Backbone, Stages
from glamlib.backbones.t2t_vit import T2TViT
from glamlib.backbones.timm_nets import CrossViTBody, TimmPyramid, TNTBody, ViTBody
from glamlib.backbones.vil import ViLStage
from glamlib.backbones.weights import load_weights
from glamlib.errors import Count, check, one_of
from glamlib.models.config import ModelConfig
from glamlib.models.encoder import Encoder, init_linear
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.upernet import FCNHead, UPerNetDecoder

_BODIES: dict[str, Callable[[BackboneConfig, int], nn.Module]] = {
    "pvt": partial(Stages, PVTStage),
    "pvt_v2": TimmPyramid,
    "twins_pcpvt": TimmPyramid,
    "twins_svt": TimmPyramid,
    "vil": partial(Stages, ViLStage),
    "cvt": partial(Stages, CvTStage),
    "vit": ViTBody,
    "t2t_vit": T2TViT,
    "tnt": TNTBody,
    "crossvit": CrossViTBody,
}


def build(config: BackboneConfig, in_channels: int) -> nn.Module:
    """Return the backbone of a configuration: see `create_backbone`."""
    if config.backbone == "swin":  # ours: timm's masks wrongly where windows do not divide the map
        sizes = ModelConfig(
            embed_dim=config.embed_dims[0],
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=config.window_size,
            mlp_ratio=config.mlp_ratios[0],
            drop_path=config.drop_path,
        )
        backbone = Encoder(sizes, in_channels)
    else:
        backbone = Backbone(_BODIES[config.backbone](config, in_channels))
    init_linear(backbone, config.weight_init)
    return backbone


def create_backbone(
    name: str, in_channels: int = 3, *, pretrained: bool | str | Path = False, **overrides: object
) -> nn.Module:
    """Build a backbone by name.

    Args:
        name: a key of `BACKBONES`.
        in_channels: channels of the images.
        pretrained: True for timm's ImageNet weights, or a file of weights: see `load_weights`.
        **overrides: fields of `BackboneConfig`.

    Returns:
        A module with ``dims``, the channels of each level. For images ``(B, in_channels, H, W)`` of any size it gives a
        list of maps ``(B, dims[i], ceil(H / s), ceil(W / s))``, of strides s 4, 8, 16 and 32.

    Raises:
        InputError: unknown name or override, a value of the wrong type or out of range, weights that do not fit.
    """
    if name not in BACKBONES:
        raise one_of("backbone", name, BACKBONES)
    check("in_channels", in_channels, Count)
    backbone = build(BACKBONES[name].with_overrides(name, overrides), in_channels)
    if pretrained is not False:
        load_weights(backbone, name, pretrained)
    return backbone


class BackboneSegmenter(EncoderDecoder):
    """Semantic segmentation of 2D images by a backbone under UPerNet: logits at the size of any image."""

    def __init__(self, config: BackboneConfig, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(config, num_classes, in_channels, patch_size=STRIDES[0])
        self.encoder = build(config, in_channels)
        self.decoder = UPerNetDecoder(self.encoder.dims, config.decoder_channels, num_classes)
        self.auxiliary = FCNHead(self.encoder.dims[-2], config.decoder_channels // 2, num_classes)

"""BackboneSegmenter: a backbone under UPerNet."""

from functools import partial

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.pyramid import STRIDES, Backbone
from glamlib.backbones.stages import CvTStage, PVTStage, Stages
from glamlib.backbones.t2t_vit import T2TViT
from glamlib.backbones.timm_nets import CrossViTBody, TimmPyramid, TNTBody, ViTBody
from glamlib.backbones.vil import ViLStage
from glamlib.models.encoder import init_linear
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.upernet import FCNHead, UPerNetDecoder

_BODIES = {
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


class BackboneSegmenter(EncoderDecoder):
    """Semantic segmentation of 2D images by a backbone under UPerNet: logits at the size of any image."""

    def __init__(self, config: BackboneConfig, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(config, num_classes, in_channels, patch_size=STRIDES[0])
        self.encoder = Backbone(_BODIES[config.backbone](config, in_channels))
        init_linear(self.encoder, config.weight_init)
        self.decoder = UPerNetDecoder(self.encoder.dims, config.decoder_channels, num_classes)
        self.auxiliary = FCNHead(self.encoder.dims[-2], config.decoder_channels // 2, num_classes)

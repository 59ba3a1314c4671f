"""BackboneSegmenter: any backbone under UPerNet, from an image of any size to logits at its size."""

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.create import build
from glamlib.backbones.pyramid import STRIDES
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.upernet import FCNHead, UPerNetDecoder


class BackboneSegmenter(EncoderDecoder):
    """Semantic segmentation of 2D images by a backbone of the neighbours.

    Args:
        config: the model.
        num_classes: channels of the logits.
        in_channels: channels of the image.
    """

    window_pixels = 1  # every image is padded to what the backbone takes

    def __init__(self, config: BackboneConfig, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.patch_size = STRIDES[0]
        self.encoder = build(config, in_channels)
        self.decoder = UPerNetDecoder(self.encoder.dims, config.decoder_channels, num_classes)
        self.auxiliary = FCNHead(self.encoder.dims[-2], config.decoder_channels // 2, num_classes)

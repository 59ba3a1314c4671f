"""The neighbours: other people's transformers as feature pyramids, under the decoders of this library.

`create_backbone` makes one by name; `BackboneSegmenter` puts it under UPerNet. timm's are used where it has them, and a
compact implementation of ours where it has none (PVT v1, T2T-ViT, CvT, ViL).
"""

from glamlib.backbones.config import BACKBONES, BackboneConfig
from glamlib.backbones.create import BackboneSegmenter, create_backbone
from glamlib.backbones.weights import load_weights

__all__ = ["BACKBONES", "BackboneConfig", "BackboneSegmenter", "create_backbone", "load_weights"]

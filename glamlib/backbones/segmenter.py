"""From the maps of any backbone to a feature pyramid of an image of any size, and UPerNet on it."""

from functools import partial

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from glamlib.backbones.config import STRIDES, BackboneConfig
from glamlib.backbones.stages import Stages, cvt_stage, pvt_stage
from glamlib.backbones.timm_nets import CrossViTBody, TimmPyramid, TNTBody, ViTBody
from glamlib.backbones.vil import vil_stage
from glamlib.layers.windows import padding_to
from glamlib.models.encoder import init_linear
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.upernet import FCNHead, UPerNetDecoder, cut

_BODIES = dict.fromkeys(("pvt_v2", "twins_pcpvt", "twins_svt"), TimmPyramid)
_BODIES |= {name: partial(Stages, make) for name, make in (("pvt", pvt_stage), ("cvt", cvt_stage), ("vil", vil_stage))}
_BODIES |= {"vit": ViTBody, "t2t_vit": ViTBody, "tnt": TNTBody, "crossvit": CrossViTBody}


class SimplePyramid(nn.Module):
    """Four levels from the one map of a network of stride 16.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022), section 3: transposed
    convolutions to strides 4 and 8, the map itself at 16, its maximum at 32. The decoder makes widths equal.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        half, quarter = dim // 2, dim // 4
        self.dims = (quarter, half, dim, dim)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, 2), LayerNorm2d(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2)
        )
        self.up8 = nn.ConvTranspose2d(dim, half, 2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps ``(B, dims[i], H / stride, W / stride)`` of strides 4, 8, 16, 32."""
        return [self.up4(x), self.up8(x), x, F.max_pool2d(x, 2)]


class Backbone(nn.Module):
    """A feature pyramid of strides 4, 8, 16 and 32 for images of any size.

    The image is zero-padded at its ends to multiples of 32 pixels; features beyond the image are cut off. ``body``
    gives maps of the four strides, or one of stride 16, which gets a `SimplePyramid`. ``dims`` are their channels.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.pyramid = SimplePyramid(body.dims) if isinstance(body.dims, int) else nn.Identity()
        self.dims = body.dims if isinstance(body.dims, tuple) else self.pyramid.dims

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return ``(B, dims[i], ceil(H / stride), ceil(W / stride))`` of each stride for ``(B, C_in, H, W)``."""
        size = tuple(x.shape[2:])
        levels = self.pyramid(self.body(F.pad(x, padding_to(size, (STRIDES[-1],) * 2))))
        return [cut(level, [-(-s // stride) for s in size]) for level, stride in zip(levels, STRIDES, strict=True)]


class BackboneSegmenter(EncoderDecoder):
    """Semantic segmentation of 2D images by a backbone under UPerNet: logits at the size of any image."""

    def __init__(self, config: BackboneConfig, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(config, num_classes, in_channels, patch_size=STRIDES[0])
        self.encoder = Backbone(_BODIES[config.backbone](config, in_channels))
        init_linear(self.encoder, config.weight_init)
        self.decoder = UPerNetDecoder(self.encoder.dims, config.decoder_channels, num_classes)
        self.auxiliary = FCNHead(self.encoder.dims[-2], config.decoder_channels // 2, num_classes)

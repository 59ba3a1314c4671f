"""Segmenter: an encoder and a decoder, from an image of any size to logits at its size."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from glamlib.models.config import Config, ModelConfig
from glamlib.models.encoder import Encoder, Stage, init_linear
from glamlib.models.unet import NonLocalUpsampling, UNetDecoder
from glamlib.models.upernet import FCNHead, LinearDecoder, UPerNetDecoder, cut, onto, resize


@dataclass(frozen=True)
class Parts:
    """Where the paper and the released code differ; the paper's by default.

    Attributes:
        make_stage, upsampling: what makes a `Stage` and a `NonLocalUpsampling`.
        resize_to_image: resize maps and logits to the sizes wanted instead of cutting off the padded border.
        auxiliary_side, max_auxiliary: voxels a side that an auxiliary head for volumes makes of a patch, and the most
            such heads; None for a patch's own, and for a head on each level between the finest and the coarsest.
        initialise: whether linear layers of volumes are initialised as configured, or left as PyTorch makes them.
    """

    make_stage: Callable[..., Stage] = Stage
    upsampling: Callable[..., NonLocalUpsampling] = NonLocalUpsampling
    resize_to_image: bool = False
    auxiliary_side: int | None = None
    max_auxiliary: int | None = None
    initialise: bool = True


PAPER = Parts()


class EncoderDecoder(nn.Module):
    """From an image of any size to logits at its size: what the segmenters of all encoders share.

    A subclass sets ``encoder``, ``decoder`` and ``auxiliary`` (or None). The image counts as padded to multiples of
    ``patch_size``, the stride of the highest level; None: logits are resized to it.
    """

    def __init__(self, config: Config, num_classes: int, in_channels: int, patch_size: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.patch_size = patch_size

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the pyramid of ``(B, in_channels, *size)``: level i is ``(B, C_i, *size_i)``, highest first."""
        return self.encoder(x)

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, Tensor | None]:
        """Return logits ``(B, num_classes, H, W)`` for images ``(B, in_channels, H, W)`` of any size.

        With ``auxiliary``, also those of the auxiliary head, of the same shape; None for a model without one.
        """
        features, size = self.encoder(x), tuple(x.shape[2:])
        # Resized to the padded image and then cut: so a patch at the border keeps its place.
        logits = cut(resize(self.decoder(features), tuple(s + -s % (self.patch_size or 1) for s in size)), size)
        if not auxiliary:
            return logits
        if self.auxiliary is None:
            return logits, None
        stride = self.patch_size and self.patch_size * 2 ** (len(features) - 2)
        return logits, onto(self.auxiliary(features[-2]), size, stride)


class Segmenter(EncoderDecoder):
    """Semantic segmentation of 2D images by Swin or GLAM-Swin; see `Parts` for ``parts``."""

    def __init__(self, config: ModelConfig, num_classes: int, in_channels: int = 3, parts: Parts = PAPER) -> None:
        patch_size, factor = (None, None) if parts.resize_to_image else (config.patch_size, 2)
        super().__init__(config, num_classes, in_channels, patch_size)
        self.encoder = Encoder(config, in_channels, parts.make_stage, skips=config.decoder.startswith("unet"))
        self.auxiliary = None
        if config.decoder == "linear":
            self.decoder = LinearDecoder(config.dims, num_classes, factor)
        elif config.decoder == "upernet":
            self.decoder = UPerNetDecoder(config.dims, config.decoder_channels, num_classes, factor=factor)
            if len(config.dims) > 1:
                self.auxiliary = FCNHead(config.dims[-2], config.decoder_channels // 2, num_classes)
        else:
            upsampling = parts.upsampling if config.decoder == "unet_nlu" else None
            self.decoder = UNetDecoder(config, num_classes, parts.make_stage, upsampling)
        init_linear(self, config.weight_init)

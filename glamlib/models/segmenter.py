"""Segmenter: an encoder and a decoder, from an image of any size to logits at its size."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from glamlib.models.config import ModelConfig
from glamlib.models.encoder import Encoder, init_linear, stage_drop_paths
from glamlib.models.stage import Stage
from glamlib.models.unet import NonLocalUpsampling, UNetDecoder
from glamlib.models.upernet import FCNHead, LinearDecoder, UPerNetDecoder, resize


@dataclass(frozen=True)
class Parts:
    """What a network is made of where the paper and the released code differ; as it stands, the paper's.

    Attributes:
        make_stage: `Stage` or one like it.
        upsampling: `NonLocalUpsampling` or one like it.
        resize_to_image: resize the logits to the image's size, where a padded border would rather be cut off.
    """

    make_stage: Callable[..., Stage] = Stage
    upsampling: type[NonLocalUpsampling] | Callable[..., NonLocalUpsampling] = NonLocalUpsampling
    resize_to_image: bool = False


class EncoderDecoder(nn.Module):
    """From an image of any size to logits at its size: what segmenters of all encoders share.

    A subclass sets the modules ``encoder`` (gives a pyramid, highest resolution first), ``decoder`` and ``auxiliary``
    (or None), ``num_classes``, ``in_channels`` and ``config``, and here:

    Attributes:
        patch_size: pixels along each side of a cell of the highest level.
        resize_to_image: see `Parts`.
    """

    patch_size: int
    resize_to_image: bool = False

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the pyramid of ``(B, in_channels, H, W)``: level i is ``(B, C_i, h_i, w_i)``, highest first."""
        return self.encoder(x)

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, Tensor | None]:
        """Return logits ``(B, num_classes, H, W)`` for images ``(B, in_channels, H, W)`` of any size.

        With ``auxiliary``, also those of the auxiliary head, of the same shape; None for a model without one.
        """
        features = self.encoder(x)
        logits = self._to_image(self.decoder(features), x)
        if not auxiliary:
            return logits
        return logits, None if self.auxiliary is None else resize(self.auxiliary(features[-2]), tuple(x.shape[2:]))

    def _to_image(self, logits: Tensor, x: Tensor) -> Tensor:
        """Resize logits to the size of the image ``x``."""
        height, width = x.shape[2:]
        if self.resize_to_image:
            return logits if logits.shape[2:] == x.shape[2:] else resize(logits, (height, width))
        # Up to the padded image and then cut: a patch that was padded at the border keeps its true place.
        patch = self.patch_size
        padded = (-(-height // patch) * patch, -(-width // patch) * patch)
        if logits.shape[2:] != padded:  # a UNet comes at this size
            logits = resize(logits, padded)
        return logits[:, :, :height, :width]


class Segmenter(EncoderDecoder):
    """Semantic segmentation of 2D images by Swin or GLAM-Swin.

    Args:
        config: the model.
        num_classes: channels of the logits.
        in_channels: channels of the image.
        parts: see `Parts`.
    """

    def __init__(self, config: ModelConfig, num_classes: int, in_channels: int = 3, parts: Parts | None = None) -> None:
        super().__init__()
        parts = parts or Parts()
        self.config = config
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.patch_size = config.patch_size
        self.resize_to_image = parts.resize_to_image
        self.encoder = Encoder(
            in_channels,
            config.embed_dim,
            config.depths,
            config.num_heads,
            config.window_size,
            config.patch_size,
            config.num_global_tokens,
            config.mixer,
            config.mlp_ratio,
            config.drop_path,
            skips=config.decoder.startswith("unet"),
            make_stage=parts.make_stage,
        )
        dims = self.encoder.dims
        self.auxiliary = None
        if config.decoder == "linear":
            self.decoder = LinearDecoder(dims, num_classes)
        elif config.decoder == "upernet":
            self.decoder = UPerNetDecoder(dims, config.decoder_channels, num_classes)
            if len(dims) > 1:
                self.auxiliary = FCNHead(dims[-2], config.decoder_channels // 2, num_classes)
        else:
            self.decoder = self._unet(parts)
        init_linear(self, config.weight_init)

    def _unet(self, parts: Parts) -> UNetDecoder:
        config = self.config
        window = (config.window_size,) * 2
        rates = stage_drop_paths(config.drop_path, config.depths)
        stages = [
            parts.make_stage(
                dim=dim,
                drop_paths=rates[i],
                num_heads=config.num_heads[i],
                window_size=window,
                num_global_tokens=config.tokens_of(i),
                mixer=config.mixer,
                mlp_ratio=config.mlp_ratio,
                level=i,
            )
            for i, dim in enumerate(self.encoder.dims[:-1])
        ]
        return UNetDecoder(
            stages,
            self.encoder.dims,
            config.num_heads,
            [stage_rates[0] for stage_rates in rates],
            window,
            config.patch_size,
            self.num_classes,
            config.mlp_ratio,
            parts.upsampling if config.decoder == "unet_nlu" else None,
        )

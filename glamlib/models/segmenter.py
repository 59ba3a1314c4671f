"""Segmenter: an encoder and a decoder, from an image of any size to logits at its size."""

from torch import Tensor, nn

from .config import ModelConfig
from .decoders import LinearDecoder, UPerNetDecoder, resize
from .encoder import Encoder


class Segmenter(nn.Module):
    """Semantic segmentation of 2D images.

    Args:
        config: the model.
        num_classes: channels of the logits.
        in_channels: channels of the image.
    """

    def __init__(self, config: ModelConfig, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.in_channels = in_channels
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
            weight_init=config.weight_init,
        )
        if config.decoder == "linear":
            self.decoder = LinearDecoder(self.encoder.dims, num_classes)
        else:
            self.decoder = UPerNetDecoder(self.encoder.dims, config.decoder_channels, num_classes)

    @property
    def window_pixels(self) -> int:
        """Side of a window of the first stage in pixels."""
        return self.config.window_size * self.config.patch_size

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the pyramid of ``(B, in_channels, H, W)``: level i is ``(B, C_i, h_i, w_i)``, highest first."""
        return self.encoder(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` for images ``(B, in_channels, H, W)`` of any size."""
        height, width = x.shape[2:]
        logits = self.decoder(self.encoder(x))  # (B, num_classes, ceil(H / patch), ceil(W / patch))
        patch = self.config.patch_size
        # Up by the patch size and then cut: a patch that was padded at the border keeps its true place.
        logits = resize(logits, (logits.shape[2] * patch, logits.shape[3] * patch))
        return logits[:, :, :height, :width]

"""A decoder that adds no context: a linear classifier of each patch, nothing more."""

from torch import Tensor, nn

from .resize import resize


class LinearDecoder(nn.Module):
    """A linear classifier of each patch on every level, their logits summed (Long et al., "FCN", CVPR 2015, fig. 3).

    It looks at no neighbour but for resizing: what a model knows of the rest of the image came through its attention.
    """

    def __init__(self, dims: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.ModuleList(nn.Conv2d(dim, num_classes, 1) for dim in dims)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits ``(B, num_classes, h, w)`` at the size of ``features[0]``."""
        size = features[0].shape[2:]
        return sum(resize(conv(feature), size) for conv, feature in zip(self.conv_seg, features, strict=True))

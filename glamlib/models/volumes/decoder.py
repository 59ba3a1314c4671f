"""nnFormer's decoder: up from the last stage, the skip added and a stage of blocks at every resolution."""

from torch import Tensor, nn

from glamlib.models.stage import Stage

from .embedding import VolumeExpand


class VolumeDecoder(nn.Module):
    """From the encoder's pyramid to logits at the padded volume's size.

    Args:
        stages: of each level but the coarsest, highest resolution first; their tokens start anew.
        dims: channels of each level.
        patch_size: voxels of a patch; the head undoes the patch embedding.
        num_classes: channels of the logits.
    """

    def __init__(
        self, stages: list[Stage], dims: tuple[int, ...], patch_size: tuple[int, ...], num_classes: int
    ) -> None:
        super().__init__()
        self.ups = nn.ModuleList(VolumeExpand(dim) for dim in dims[1:])
        self.layers_up = nn.ModuleList(stages)
        self.head = nn.ConvTranspose3d(dims[0], num_classes, patch_size, patch_size)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits ``(B, num_classes, *padded size)`` of features ``(B, C_i, *size_i)``, highest first.

        Also the map of each level, shaped as ``features``.
        """
        maps = [features[-1]]
        for up, stage, skip in reversed(list(zip(self.ups, self.layers_up, features, strict=False))):
            x = up(maps[0].movedim(1, -1), tuple(skip.shape[2:]))  # (B, *size_i, C_i)
            maps.insert(0, stage(x + skip.movedim(1, -1)).movedim(-1, 1))
        return self.head(maps[0]), maps

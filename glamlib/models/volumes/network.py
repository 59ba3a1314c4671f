"""VolumeSegmenter: nnFormer or GLAM-nnFormer, from a volume of any size to logits at its size.

Sources: Zhou et al., nnFormer (IEEE TIP 2023), in the form of themyrl/medseg at 35de82e: convolutions for its skip and
downsampling paths, windows of a size of their own a stage; Themyr et al. (WACV 2023), section 3.1, for the tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from glamlib.models.encoder import Encoder, init_linear, stage_drop_paths
from glamlib.models.stage import Stage

from .config import VolumeConfig
from .decoder import VolumeDecoder
from .embedding import VolumeEmbed, VolumeMerging


@dataclass(frozen=True)
class VolumeParts:
    """What a network is made of where the paper and the released code differ; as it stands, the paper's.

    Attributes:
        make_stage: `Stage` or one like it.
        auxiliary_side: voxels that an auxiliary head makes of a patch along each dimension; None for a patch's own.
        max_auxiliary: auxiliary heads at most; None for one on each level between the finest and the coarsest.
        initialise: whether linear layers are initialised as the configuration says, or left as PyTorch makes them.
    """

    make_stage: Callable[..., Stage] = Stage
    auxiliary_side: int | None = None
    max_auxiliary: int | None = None
    initialise: bool = True


class VolumeSegmenter(nn.Module):
    """Semantic segmentation of volumes.

    Args:
        config: the model.
        num_classes: channels of the logits.
        in_channels: channels of the volume.
        parts: see `VolumeParts`.
    """

    def __init__(
        self, config: VolumeConfig, num_classes: int, in_channels: int = 1, parts: VolumeParts | None = None
    ) -> None:
        super().__init__()
        parts = parts or VolumeParts()
        self.config = config
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.encoder = Encoder(
            in_channels,
            config.embed_dim,
            config.depths,
            config.num_heads,
            config.windows,
            num_global_tokens=config.num_global_tokens,
            mixer=config.mixer,
            mlp_ratio=config.mlp_ratio,
            drop_path=config.drop_path,
            ndim=config.ndim,
            make_stage=parts.make_stage,
            make_embedding=partial(VolumeEmbed, patch_size=config.patch),
            make_merging=VolumeMerging,
        )
        dims = self.encoder.dims
        self.decoder = VolumeDecoder(self._decoder_stages(parts), dims, config.patch, num_classes)
        side = config.patch if parts.auxiliary_side is None else (parts.auxiliary_side,) * config.ndim
        self.auxiliary = nn.ModuleList(
            nn.ConvTranspose3d(dim, num_classes, side, side) for dim in dims[1:-1][: parts.max_auxiliary]
        )
        if parts.initialise:
            init_linear(self, config.weight_init)

    def _decoder_stages(self, parts: VolumeParts) -> list[Stage]:
        """Return the decoder's stages, highest resolution first; drop path rises from the coarsest to the finest."""
        config = self.config
        rates = stage_drop_paths(config.drop_path, config.depths[-2::-1])[::-1]
        return [
            parts.make_stage(
                dim=self.encoder.dims[level],
                drop_paths=rates[level],
                num_heads=config.num_heads[level],
                window_size=(config.windows[level],) * config.ndim,
                num_global_tokens=config.tokens_of(level),
                mixer=config.mixer,
                mlp_ratio=config.mlp_ratio,
                level=level,
            )
            for level in range(len(config.depths) - 1)
        ]

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Return the pyramid of ``(B, in_channels, D, H, W)``: ``(B, C_i, d_i, h_i, w_i)``, highest first."""
        return self.encoder(x)

    def forward(self, x: Tensor, auxiliary: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits ``(B, num_classes, D, H, W)`` for volumes ``(B, in_channels, D, H, W)`` of any size.

        With ``auxiliary``, also the logits for deep supervision: of every level between the finest and the coarsest,
        finest first, the k-th (from 1) at ``ceil(size / 2**k)``, half the size, a quarter, and so on.
        """
        logits, maps = self.decoder(self.encoder(x))
        size = tuple(x.shape[2:])
        logits = _cut(logits, size)
        if not auxiliary:
            return logits
        lower = []
        for k, head in enumerate(self.auxiliary, start=1):
            scales = zip(size, head.stride, self.config.patch, strict=True)
            lower.append(_cut(head(maps[k]), tuple(-(-s * side // (p * 2**k)) for s, side, p in scales)))
        return logits, lower


def _cut(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Cut off the padded border of ``(B, C, *padded)``: ``(B, C, *size)``."""
    return x[(slice(None), slice(None), *(slice(0, s) for s in size))]

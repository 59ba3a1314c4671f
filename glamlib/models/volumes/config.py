"""VolumeConfig: everything that makes up a network for volumes."""

from dataclasses import dataclass

from glamlib.errors import InputError
from glamlib.models.config import StagedConfig


@dataclass(frozen=True)
class VolumeConfig(StagedConfig):
    """One model for volumes. Sizes are in patches (window_size), voxels (patch_size) or channels (embed_dim).

    ``window_size`` is the side of the cubic windows: one number for all stages, or one a stage. ``patch_size`` is one
    number, or one for depth, height and width; each 1, 2 or 4. ``num_global_tokens`` is one number for all stages or
    one a stage. ``behaviour`` is "paper", "released" or single differences of the released 3D code joined by "+"
    (`glamlib.released.VOLUME_DIFFERENCES`), for the mixers gmsa and none only. Every stage of the decoder mirrors the
    encoder's of its resolution.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int | tuple[int, ...] = 4
    patch_size: int | tuple[int, ...] = 2
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_global_tokens: int | tuple[int, ...] = 0
    mixer: str = "gmsa"
    weight_init: str = "swin"
    behaviour: str = "paper"
    grad_checkpointing: bool = False

    ndim = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % 2:
            raise InputError(f"embed_dim={self.embed_dim}: must be even, the embedding starts with half of it")
        if len(self.windows) != len(self.depths) or min(self.windows) < 1:
            raise InputError(
                f"window_size={self.window_size}: must be one number, or one for each of {len(self.depths)} stages, "
                "each at least 1"
            )
        if len(self.patch) != 3 or not set(self.patch) <= {1, 2, 4}:
            raise InputError(f"patch_size={self.patch_size}: must be one number or three, each 1, 2 or 4")

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of a window of each stage."""
        return self.window_size if isinstance(self.window_size, tuple) else (self.window_size,) * len(self.depths)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Voxels of a patch along depth, height and width."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size,) * 3

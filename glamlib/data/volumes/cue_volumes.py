"""Cue scenes in three dimensions: generated volumes of shapes whose class no local look can tell.

As in `glamlib.data.scenes`, all shapes of a volume have the class that the cue tile stands for, and a model must carry
it from the tile to the shapes. A volume has one channel, so the cue is not a colour: the tile is darker or brighter
than everything else. The background and the tile itself are class 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from glamlib.data.cue_layout import Draws, check_layout, draw_layout
from glamlib.data.scenes import BACKGROUND, SHAPE

CUE_GREYS = (32, 224)  # grey steps of 64 lie between the dark cue, the background, the shapes and the bright cue
# Fixed, not measured on each volume: a volume's own mean and deviation depend on the cue, and would tell it anywhere.
GREY_MEAN = 128
GREY_DEVIATION = 64


@dataclass(frozen=True)
class CueVolumeConfig:
    """What cue volumes look like; lengths in voxels.

    Attributes:
        size: side of the volume.
        num_shapes: shapes (balls and cubes of radius 3 to 5) in a volume.
        cue_size: side of the cue tile.
        noise: standard deviation of the grey-value noise.
        min_distance, max_distance: range of the distance from the cue's centre to each shape's; max_distance 0 is no
            upper limit.
    """

    size: int = 32
    num_shapes: int = 4
    cue_size: int = 5
    noise: int = 16
    min_distance: int = 0
    max_distance: int = 0
    num_cues: ClassVar[int] = len(CUE_GREYS)

    def __post_init__(self) -> None:
        check_layout(self, largest=256)


@dataclass(frozen=True)
class CueVolume:
    """One volume: grey ``(D, H, W)`` uint8; label ``(D, H, W)`` uint8; shapes ``(D, H, W)`` uint8, 0 or the shape's
    number from 1; distances ``(num_shapes,)`` float64 voxels from the cue's centre to each shape's; cue, its class
    from 1."""

    grey: np.ndarray
    label: np.ndarray
    shapes: np.ndarray
    distances: np.ndarray
    cue: int


def draw_volume(config: CueVolumeConfig, seed: int, index: int) -> CueVolume:
    """Return the volume of (seed, index).

    Raises:
        InputError: the shapes and the cue find no room under the configuration.
    """
    draws = Draws(seed, index)
    tile, shapes, distances = draw_layout(config, draws, dims=3, smallest_radius=3)
    cue = draws.below(config.num_cues) + 1
    grey = np.full(shapes.shape, BACKGROUND, dtype=np.int32)
    grey[shapes > 0] = SHAPE
    grey[tile] = CUE_GREYS[cue - 1]
    grey = np.clip(grey + draws.noise(grey.shape, config.noise), 0, 255).astype(np.uint8)
    label = np.where(shapes > 0, cue, 0).astype(np.uint8)
    return CueVolume(grey, label, shapes, distances, cue)


class CueVolumes:
    """Cue volumes as a `VolumeDataset`, drawn when asked for: ``[i]`` is image float32 (1, D, H, W), label uint8."""

    classes = ("background", "dark cue", "bright cue")
    palette = ((SHAPE // 2,) * 3, (0, 114, 178), (240, 228, 66))
    ignore_index = 255
    sided = False
    left_right_axis = 2

    def __init__(self, config: CueVolumeConfig, count: int, seed: int) -> None:
        self.config = config
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Return a name that tells the seed and the index."""
        return f"cue-volume-{self.seed}-{index}"

    def spacing(self, index: int) -> tuple[float, float, float]:
        """Return the sides of a voxel: they have no meaning in mm, and are 1."""
        return (1.0, 1.0, 1.0)

    def scene(self, index: int) -> CueVolume:
        """Return volume ``index`` with all that is known of it; IndexError past the end."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return draw_volume(self.config, self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = self.scene(index)
        image = (scene.grey.astype(np.float32) - GREY_MEAN) / GREY_DEVIATION
        return torch.from_numpy(image)[None], torch.from_numpy(scene.label)

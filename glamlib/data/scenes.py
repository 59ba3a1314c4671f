"""Cue scenes: generated images of shapes whose class no local look can tell.

Every scene holds grey shapes and, somewhere else, one coloured tile: the cue. All shapes of a scene have the class that
the cue's colour stands for, so a model must carry the colour from the tile to the shapes. The background and the tile
itself are class 0.

A scene depends on (seed, index) and its configuration alone (see `glamlib.data.cue_layout`), so it is the same on every
platform and with any number of workers.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from glamlib.data.cue_layout import Draws, check_integer, check_layout, draw_layout

BACKGROUND = 96  # grey values of 0..255
SHAPE = 160
# Cue colours: far apart, and each unlike the greys (Okabe and Ito's colour-blind safe set).
CUE_COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))

_KEPT = 128  # scenes of a data set that are not drawn again


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like; lengths in pixels.

    Attributes:
        size: side of the image.
        num_shapes: shapes in a scene.
        num_cues: cue colours, and so classes beside the background.
        cue_size: side of the cue tile.
        noise: standard deviation of the grey-value noise.
        min_distance, max_distance: range of the distance from the cue's centre to each shape's; max_distance 0 is no
            upper limit.
    """

    size: int = 64
    num_shapes: int = 4
    num_cues: int = 2
    cue_size: int = 9
    noise: int = 16
    min_distance: int = 0
    max_distance: int = 0

    def __post_init__(self) -> None:
        check_layout(self, largest=4096)
        check_integer("num_cues", self.num_cues, 2, len(CUE_COLOURS))


@dataclass(frozen=True)
class Scene:
    """One scene: image ``(3, H, W)`` uint8; label ``(H, W)`` uint8; shapes ``(H, W)`` uint8, 0 or the shape's number
    from 1; distances ``(num_shapes,)`` float64 pixels from the cue's centre to each shape's; cue, its class from 1."""

    image: np.ndarray
    label: np.ndarray
    shapes: np.ndarray
    distances: np.ndarray
    cue: int


def draw_scene(config: SceneConfig, seed: int, index: int) -> Scene:
    """Return the scene of (seed, index).

    Raises:
        InputError: the shapes and the cue find no room under the configuration.
    """
    draws = Draws(seed, index)
    tile, shapes, distances = draw_layout(config, draws, dims=2, smallest_radius=4)
    cue = draws.below(config.num_cues) + 1
    image = np.full((config.size, config.size, 3), BACKGROUND, dtype=np.int32)
    image[shapes > 0] = SHAPE
    image[tile] = CUE_COLOURS[cue - 1]
    image = np.clip(image + draws.noise(image.shape, config.noise), 0, 255).astype(np.uint8)
    label = np.where(shapes > 0, cue, 0).astype(np.uint8)
    return Scene(image.transpose(2, 0, 1), label, shapes, distances, cue)


class CueScenes:
    """Scenes as a segmentation data set, drawn when asked for. ``[i]`` is (image, label), uint8 tensors."""

    def __init__(self, config: SceneConfig, count: int, seed: int) -> None:
        self.config = config
        self.count = count
        self.seed = seed
        self.classes = ("background", *(f"cue {i + 1}" for i in range(config.num_cues)))
        self.palette = ((SHAPE // 2,) * 3, *CUE_COLOURS[: config.num_cues])
        self.ignore_index = 255
        # evaluation asks for a batch of images, then for what else is known of each
        self._drawn = lru_cache(maxsize=_KEPT)(partial(draw_scene, config, seed))

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"scene-{self.seed}-{index}"

    def scene(self, index: int) -> Scene:
        """Return scene ``index``, whose arrays may be handed out again: do not write into them."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self._drawn(index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = self.scene(index)
        return torch.from_numpy(scene.image.copy()), torch.from_numpy(scene.label.copy())

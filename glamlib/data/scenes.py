"""Cue scenes: generated images of shapes whose class no local look can tell.

Every scene holds grey shapes and, somewhere else, one coloured tile: the cue. All shapes of a scene have the class that
the cue's colour stands for, so a model must carry the colour from the tile to the shapes. The background and the tile
itself are class 0.

A scene depends on (seed, index) and its configuration alone. It is drawn with integers from the raw words of a Philox
counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), whose stream numpy guarantees, so it is
the same on every platform and with any number of workers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glamlib.errors import InputError

BACKGROUND = 96  # grey values of 0..255
SHAPE = 160
# Cue colours: far apart, and each unlike the greys (Okabe and Ito's colour-blind safe set).
CUE_COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))
_TRIES = 200


def _check(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name}={value!r}: must be an integer from {low} to {high}")


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
        _check("size", self.size, 16, 4096)  # first: the limits of others are shares of it
        limits = {
            "num_shapes": (1, 200),
            "num_cues": (2, len(CUE_COLOURS)),
            "cue_size": (1, self.size // 2),
            "noise": (0, 64),
            "min_distance": (0, self.size),
            "max_distance": (0, 2 * self.size),
        }
        for name, (low, high) in limits.items():
            _check(name, getattr(self, name), low, high)
        if self.max_distance and self.max_distance <= self.min_distance:
            raise InputError(f"max_distance={self.max_distance}: must be above min_distance={self.min_distance}, or 0")


@dataclass(frozen=True)
class Scene:
    """One scene: image ``(3, H, W)`` uint8; label ``(H, W)`` uint8; shapes ``(H, W)`` uint8, 0 or the shape's number
    from 1; distances ``(num_shapes,)`` float64 pixels from the cue's centre to each shape's; cue, its class from 1."""

    image: np.ndarray
    label: np.ndarray
    shapes: np.ndarray
    distances: np.ndarray
    cue: int


class _Draws:
    """Integers from a Philox stream that is fixed by two keys."""

    def __init__(self, seed: int, index: int) -> None:
        self._stream = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))

    def below(self, limit: int) -> int:
        return int(self._stream.random_raw()) % limit

    def noise(self, shape: tuple[int, ...], deviation: int) -> np.ndarray:
        """Return nearly Gaussian integers: the sum of four uniform bytes, centred, scaled to ``deviation``, floored."""
        count = int(np.prod(shape))
        raw = np.atleast_1d(self._stream.random_raw((count + 1) // 2)).astype("<u8")  # 8 bytes: two values
        total = raw.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32)[:count] - 510
        return (total * deviation // 148).reshape(shape)  # 4 uniform bytes: variance 4 * (256**2 - 1) / 12 = 147.8**2


def draw_scene(config: SceneConfig, seed: int, index: int) -> Scene:
    """Return the scene of (seed, index).

    Raises:
        InputError: the shapes and the cue find no room under the configuration.
    """
    draws = _Draws(seed, index)
    for _ in range(_TRIES):
        layout = _place(config, draws)
        if layout is not None:
            break
    else:
        raise InputError(
            f"{config}: no room for {config.num_shapes} shapes at these distances from the cue; "
            "use fewer shapes, a larger size or a wider range"
        )
    (cue_row, cue_column), placed = layout
    cue = draws.below(config.num_cues) + 1
    image = np.full((config.size, config.size, 3), BACKGROUND, dtype=np.int32)
    shapes = np.zeros((config.size, config.size), dtype=np.uint8)
    rows, columns = np.ogrid[: config.size, : config.size]
    distances = np.zeros(config.num_shapes)
    for number, (row, column, radius, is_disc) in enumerate(placed, start=1):
        down, across = rows - row, columns - column
        inside = down**2 + across**2 <= radius**2 if is_disc else np.maximum(abs(down), abs(across)) < radius
        shapes[inside] = number
        distances[number - 1] = np.sqrt(_squared_distance(config, (cue_row, cue_column), (row, column)) / 4)
    image[shapes > 0] = SHAPE
    image[cue_row : cue_row + config.cue_size, cue_column : cue_column + config.cue_size] = CUE_COLOURS[cue - 1]
    image = np.clip(image + draws.noise(image.shape, config.noise), 0, 255).astype(np.uint8)
    label = np.where(shapes > 0, cue, 0).astype(np.uint8)
    return Scene(image.transpose(2, 0, 1), label, shapes, distances, cue)


def _squared_distance(config: SceneConfig, cue: tuple[int, int], centre: tuple[int, int]) -> int:
    """Return four times the squared distance from the centre of the cue's tile (its corner is given) to ``centre``."""
    return sum((2 * c + config.cue_size - 1 - 2 * x) ** 2 for c, x in zip(cue, centre, strict=True))


def _place(config: SceneConfig, draws: _Draws) -> tuple[tuple[int, int], list[tuple[int, int, int, bool]]] | None:
    """Return the cue's corner and each shape's (row, column, radius, is_disc), or None if one finds no room."""
    size, side = config.size, config.cue_size
    cue = (draws.below(size - side + 1), draws.below(size - side + 1))
    low, high = 4 * config.min_distance**2, 4 * (config.max_distance or 2 * size) ** 2
    placed: list[tuple[int, int, int, bool]] = []
    for _ in range(config.num_shapes):
        radius, is_disc = 4 + draws.below(3), bool(draws.below(2))
        for _ in range(_TRIES):
            row, column = (radius + draws.below(size - 2 * radius) for _ in range(2))
            free = all(max(abs(row - r), abs(column - c)) > radius + q for r, c, q, _ in placed)
            clear = any(x + radius < c or x - radius >= c + side for x, c in zip((row, column), cue, strict=True))
            if free and clear and low <= _squared_distance(config, cue, (row, column)) <= high:
                placed.append((row, column, radius, is_disc))
                break
        else:
            return None
    return cue, placed


class CueScenes:
    """Scenes as a segmentation data set, drawn when asked for. ``[i]`` is (image, label), uint8 tensors."""

    def __init__(self, config: SceneConfig, count: int, seed: int) -> None:
        self.config = config
        self.count = count
        self.seed = seed
        self.classes = ("background", *(f"cue {i + 1}" for i in range(config.num_cues)))
        self.palette = ((SHAPE // 2,) * 3, *CUE_COLOURS[: config.num_cues])
        self.ignore_index = 255

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"scene-{self.seed}-{index}"

    def scene(self, index: int) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return draw_scene(self.config, self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = self.scene(index)
        return torch.from_numpy(scene.image.copy()), torch.from_numpy(scene.label)

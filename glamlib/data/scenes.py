"""Where the cue and the shapes of a generated scene lie, in the plane or in space, drawn the same on every platform.

Everything is drawn with integers from the raw words of a Philox counter (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011), whose stream numpy guarantees.


MERGED: Cue scenes: generated images of shapes whose class no local look can tell.

Every scene holds grey shapes and, somewhere else, one coloured tile: the cue. All shapes of a scene have the class that
the cue's colour stands for, so a model must carry the colour from the tile to the shapes. The background and the tile
itself are class 0.

A scene depends on (seed, index) and its configuration alone (see `glamlib.data.scenes`), so it is the same on every
platform and with any number of workers.

MERGED: Cue scenes in three dimensions: generated volumes of shapes whose class no local look can tell.

As in `glamlib.data.scenes`, all shapes of a volume have the class that the cue tile stands for, and a model must carry
it from the tile to the shapes. A volume has one channel, so the cue is not a colour: the tile is darker or brighter
than everything else. The background and the tile itself are class 0.
"""

from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from operator import and_
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from glamlib.errors import InputError

_TRIES = 200


class LayoutConfig(Protocol):
    """What a layout asks of a scene's configuration: whole numbers, lengths in pixels or voxels."""

    size: int
    num_shapes: int
    cue_size: int
    noise: int
    min_distance: int
    max_distance: int


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise an InputError that names ``name`` unless ``value`` is an int from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name}={value!r}: must be an integer from {low} to {high}")


def check_layout(config: LayoutConfig, largest: int) -> None:
    """Raise an InputError unless the size is 16 to ``largest``, the rest fits it, and the distances are a range."""
    check_integer("size", config.size, 16, largest)  # first: the limits of others are shares of it
    limits = {
        "num_shapes": (1, 200),
        "cue_size": (1, config.size // 2),
        "noise": (0, 64),
        "min_distance": (0, config.size),
        "max_distance": (0, 2 * config.size),
    }
    for name, (low, high) in limits.items():
        check_integer(name, getattr(config, name), low, high)
    if config.max_distance and config.max_distance <= config.min_distance:
        raise InputError(f"max_distance={config.max_distance}: must be above min_distance={config.min_distance}, or 0")


class Draws:
    """Integers from a Philox stream that is fixed by two keys."""

    def __init__(self, seed: int, index: int) -> None:
        self._stream = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))

    def below(self, limit: int) -> int:
        """Return an integer from 0 to ``limit`` - 1."""
        return int(self._stream.random_raw()) % limit

    def noise(self, shape: tuple[int, ...], deviation: int) -> np.ndarray:
        """Return nearly Gaussian integers: the sum of four uniform bytes, centred, scaled to ``deviation``, floored."""
        count = int(np.prod(shape))
        raw = np.atleast_1d(self._stream.random_raw((count + 1) // 2)).astype("<u8")  # 8 bytes: two values
        words = raw.view("<u4")[:count]
        # shifts, not numpy's sum over an axis of four bytes, which takes seven times as long
        total = sum((words >> shift) & 255 for shift in (0, 8, 16, 24)).astype(np.int32) - 510
        return (total * deviation // 148).reshape(shape)  # 4 uniform bytes: variance 4 * (256**2 - 1) / 12 = 147.8**2


class Layout(NamedTuple):
    """The cue tile as slices; shapes (size,) * dims uint8, 0 or the shape's number from 1; distances (num_shapes,)
    float64 from the cue's centre to each shape's."""

    cue: tuple[slice, ...]
    shapes: np.ndarray
    distances: np.ndarray


def draw_layout(config: LayoutConfig, draws: Draws, dims: int, smallest_radius: int) -> Layout:
    """Place a cue tile and balls and cubes (in the plane: discs and squares) that touch neither it nor one another.

    Args:
        config: size of the scene and of the tile, number of shapes, range of their distances.
        draws: where the random numbers come from.
        dims: 2 for the plane, 3 for space.
        smallest_radius: the radii are this and the two integers above.

    Raises:
        InputError: no room for the shapes and the cue under the configuration.
    """
    for _ in range(_TRIES):
        found = _place(config, draws, dims, smallest_radius)
        if found is not None:
            break
    else:
        raise InputError(
            f"{config}: no room for {config.num_shapes} shapes at these distances from the cue; "
            "use fewer shapes, a larger size or a wider range"
        )
    cue, placed = found
    shapes = np.zeros((config.size,) * dims, dtype=np.uint8)
    grid = np.ogrid[(slice(config.size),) * dims]
    distances = np.zeros(config.num_shapes)
    for number, (centre, radius, is_ball) in enumerate(placed, start=1):
        offsets = [axis - x for axis, x in zip(grid, centre, strict=True)]
        if is_ball:
            inside = sum(offset**2 for offset in offsets) <= radius**2
        else:
            inside = reduce(and_, (abs(offset) < radius for offset in offsets))  # broadcasts to the whole grid
        shapes[inside] = number
        distances[number - 1] = np.sqrt(_squared_distance(config, cue, centre) / 4)
    return Layout(tuple(slice(c, c + config.cue_size) for c in cue), shapes, distances)


def _squared_distance(config: LayoutConfig, cue: tuple[int, ...], centre: tuple[int, ...]) -> int:
    """Return four times the squared distance from the centre of the cue's tile (its corner is given) to ``centre``."""
    return sum((2 * c + config.cue_size - 1 - 2 * x) ** 2 for c, x in zip(cue, centre, strict=True))


def _place(
    config: LayoutConfig, draws: Draws, dims: int, smallest_radius: int
) -> tuple[tuple[int, ...], list[tuple[tuple[int, ...], int, bool]]] | None:
    """Return the cue's corner and each shape's (centre, radius, is_ball), or None if one finds no room."""
    size, side = config.size, config.cue_size
    cue = tuple(draws.below(size - side + 1) for _ in range(dims))
    low, high = 4 * config.min_distance**2, 4 * (config.max_distance or 2 * size) ** 2
    placed: list[tuple[tuple[int, ...], int, bool]] = []
    for _ in range(config.num_shapes):
        radius, is_ball = smallest_radius + draws.below(3), bool(draws.below(2))
        for _ in range(_TRIES):
            centre = tuple(radius + draws.below(size - 2 * radius) for _ in range(dims))
            free = all(max(abs(x - y) for x, y in zip(centre, c, strict=True)) > radius + r for c, r, _ in placed)
            clear = any(x + radius < c or x - radius >= c + side for x, c in zip(centre, cue, strict=True))
            if free and clear and low <= _squared_distance(config, cue, centre) <= high:
                placed.append((centre, radius, is_ball))
                break
        else:
            return None
    return cue, placed


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

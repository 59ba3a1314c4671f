"""Generated scenes, in the plane or in space: shapes whose class only something distant tells.

A **cue scene** holds grey shapes and, somewhere else, one tile: the cue. All shapes of a scene have the class that the
tile's colour stands for. Volumes have one channel: there the tile is darker or brighter than everything else.
A **legend scene** asks for more than one fact. Its legend has a cell for each of K keys: the key's hue beside a dark or
a bright value, drawn anew for each scene. A shape shows a key, and its class is the legend's value for it.

The background, the tile and the legend are class 0. A scene depends on its configuration, a seed and an index alone. It
is drawn with integers from the raw words of a Philox counter (Salmon et al., SC 2011), whose stream numpy guarantees,
so it is the same on every platform. Scenes are balanced: of n cues, those of the n indices from n m on have one layout,
each cue (each legend and its opposite) once, and noise of their own. So a constant answer is right exactly once in n.
"""

from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import and_
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glamlib.errors import Checked, InputError, Range

BACKGROUND = 96  # grey values of 0..255
SHAPE = 160
# Far apart, and each unlike the greys (Okabe and Ito's palette for the colour-blind).
CUE_COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))
CUE_GREYS = ((32,), (224,))  # grey steps of 64 lie between the dark cue, the background, the shapes and the bright cue
CELL = 4  # side of a legend's cell: its left half has the key's hue, its right half the value
VALUES = (24, 232)  # grey values: dark, bright
MAX_KEYS = 16
# Evenly spaced on the wheel of hues: channels are full near their own hue, and fall off to both sides
_WHEEL = (np.arange(MAX_KEYS)[:, None] * 6 - (0, 32, 64)) % 96  # 96 steps; red at 0, green at 32, blue at 64
HUES = (40 + np.clip(32 - np.minimum(_WHEEL, 96 - _WHEEL), 0, 16) * 190 // 16).tolist()

Place = tuple[int, ...]
_TRIES = 200


@dataclass(frozen=True)
class _Canvas(Checked):
    """What all scenes have; lengths in pixels."""

    role: ClassVar[str] = "option of data"
    dims: ClassVar[int] = 2
    smallest_radius: ClassVar[int] = 4
    palette: ClassVar[tuple] = CUE_COLOURS  # of the classes beside the background

    size: Annotated[int, Range(16, 4096)] = 64  # side of the image
    num_shapes: Annotated[int, Range(1, 200)] = 4
    noise: Annotated[int, Range(0, 64)] = 16  # standard deviation, in grey values


@dataclass(frozen=True)
class SceneConfig(_Canvas):
    """What cue scenes look like; lengths in pixels."""

    names: ClassVar[tuple[str, ...]] = tuple(f"cue {number}" for number in range(1, 1 + len(CUE_COLOURS)))
    colours: ClassVar[tuple] = CUE_COLOURS
    num_keys: ClassVar[int] = 1

    num_cues: Annotated[int, Range(2, len(CUE_COLOURS))] = 2  # cue colours, and so classes beside the background
    cue_size: Annotated[int, Range(1)] = 9  # side of the tile
    min_distance: Annotated[int, Range(0)] = 0  # from the cue's centre to each shape's
    max_distance: Annotated[int, Range(0)] = 0  # 0: no upper limit

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cue_size > self.size // 2:
            raise InputError(f"{self.role} cue_size={self.cue_size}: must be at most half the size, {self.size}")
        if self.max_distance and self.max_distance <= self.min_distance:
            allowed = f"must be above min_distance={self.min_distance}, or 0"
            raise InputError(f"{self.role} max_distance={self.max_distance}: {allowed}")


@dataclass(frozen=True)
class CueVolumeConfig(SceneConfig):
    """What cue volumes look like: as `SceneConfig`, in voxels, with balls and cubes of radius 3 to 5 as shapes."""

    dims: ClassVar[int] = 3
    smallest_radius: ClassVar[int] = 3
    names: ClassVar[tuple[str, ...]] = ("dark cue", "bright cue")
    palette: ClassVar[tuple] = (CUE_COLOURS[1], CUE_COLOURS[4])  # far apart in grey, too
    colours: ClassVar[tuple] = CUE_GREYS

    size: Annotated[int, Range(16, 256)] = 32
    num_cues: Annotated[int, Range(2, len(CUE_GREYS))] = 2
    cue_size: Annotated[int, Range(1)] = 5


@dataclass(frozen=True)
class LegendConfig(_Canvas):
    """What legend scenes look like; lengths in pixels."""

    names: ClassVar[tuple[str, ...]] = ("dark", "bright")
    num_cues: ClassVar[int] = 2  # values, and so classes beside the background
    cue_size: ClassVar[int] = CELL
    min_distance: ClassVar[int] = 0
    max_distance: ClassVar[int] = 0

    num_keys: Annotated[int, Range(2, MAX_KEYS)] = 8
    window: Annotated[int, Range(2 * CELL)] = 16  # side of the windows; the legend lies in one of them
    spread: bool = False  # each cell in a window of its own instead

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % CELL or self.window > self.size // 3:
            raise InputError(f"{self.role} window={self.window}: must be a multiple of {CELL}, at most size // 3")
        room = min((self.window // CELL) ** 2, (self.size // self.window) ** 2 if self.spread else MAX_KEYS)
        if self.num_keys > room:
            raise InputError(f"{self.role} num_keys={self.num_keys}: must be at most {room}, for which there is room")


class Scene(NamedTuple):
    """One scene, uint8 unless noted. A cue scene is a legend scene of one key: cell and value are tile and cue."""

    image: np.ndarray  # (C, *size), C = 3 or 1
    label: np.ndarray  # (*size)
    shapes: np.ndarray  # (*size): 0 or the shape's number from 1
    distances: np.ndarray  # (num_shapes,) float64, in pixels from the cell of its key to each shape, centre to centre
    cells: list[Place]  # the first corner of each key's cell
    values: np.ndarray  # (K,) int64: each key's, from 1
    keys: np.ndarray  # (num_shapes,) int64: each shape's, from 0

    @property
    def cue(self) -> int:
        """The class of the cue, from 1."""
        return int(self.values[0])


def _stream(seed: int, index: int, part: int = 0) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=[0, 0, 0, part])


def _below(stream: np.random.Philox, limit: int) -> int:
    return int(stream.random_raw()) % limit


def _noise(stream: np.random.Philox, shape: tuple[int, ...], deviation: int) -> np.ndarray:
    """Return nearly Gaussian integers: sums of four uniform bytes, centred, scaled to ``deviation``, floored."""
    count = int(np.prod(shape))
    raw = stream.random_raw((count + 1) // 2).astype("<u8")  # 8 bytes: two values
    words = raw.view("<u4")[:count]
    # shifts, not numpy's sum over an axis of four bytes, which takes seven times as long
    total = sum((words >> shift) & 255 for shift in (0, 8, 16, 24)).astype(np.int32) - 510
    return (total * deviation // 148).reshape(shape)  # 4 uniform bytes: variance 4 * (256**2 - 1) / 12 = 147.8**2


def _squared_distance(config: _Canvas, corner: Place, centre: Place) -> int:
    """Return four times the squared distance from the centre of the cell with this ``corner`` to ``centre``."""
    return sum((2 * c + config.cue_size - 1 - 2 * x) ** 2 for c, x in zip(corner, centre, strict=True))


class _Shape(NamedTuple):
    centre: Place
    radius: int
    is_ball: bool
    key: int


def _cells(config: LegendConfig, stream: np.random.Philox) -> tuple[list[Place], list[Place]]:
    """Return the first corner of each key's cell, and that of the three by three windows around it."""
    grid, side = config.size // config.window, config.window // CELL
    windows, places = (stream.random_raw(n**2).argsort(kind="stable").tolist() for n in (grid, side))
    windows = [divmod(windows[key if config.spread else 0], grid) for key in range(config.num_keys)]
    cells = [
        (config.window * row + CELL * (place // side), config.window * column + CELL * (place % side))
        for (row, column), place in zip(windows, places, strict=False)
    ]
    return cells, [(config.window * (row - 1), config.window * (column - 1)) for row, column in windows]


def _place(config: _Canvas, stream: np.random.Philox) -> tuple[list[Place], list[_Shape]] | None:
    """Return the cells' corners and the shapes, none touching; None if one finds no room."""
    if isinstance(config, LegendConfig):
        cells, around = _cells(config, stream)
    else:
        cells = [tuple(_below(stream, config.size - config.cue_size + 1) for _ in range(config.dims))]
    low, high = 4 * config.min_distance**2, 4 * (config.max_distance or 2 * config.size) ** 2
    placed: list[_Shape] = []
    for _ in range(config.num_shapes):
        radius, is_ball = config.smallest_radius + _below(stream, 3), bool(_below(stream, 2))
        key = _below(stream, config.num_keys) if config.num_keys > 1 else 0
        boxes = [(corner, config.cue_size) for corner in cells]
        if config.num_keys > 1:
            # two blocks of window attention, the second shifted, never see a shape and its key
            boxes.append((around[key], 3 * config.window))
        for _ in range(_TRIES):
            centre = tuple(radius + _below(stream, config.size - 2 * radius) for _ in range(config.dims))
            free = all(
                max(abs(x - y) for x, y in zip(centre, other.centre, strict=True)) > radius + other.radius
                for other in placed
            )
            clear = all(
                any(x + radius < c or x - radius >= c + side for x, c in zip(centre, corner, strict=True))
                for corner, side in boxes
            )
            if free and clear and low <= _squared_distance(config, cells[key], centre) <= high:
                placed.append(_Shape(centre, radius, is_ball, key))
                break
        else:
            return None
    return cells, placed


@lru_cache(maxsize=64)  # evaluation asks for a batch of images, then for what else is known of each
def draw_scene(config: SceneConfig | LegendConfig, seed: int, index: int) -> Scene:
    """Return the scene of (seed, index), cached: do not write into it. InputError where the shapes find no room."""
    stream = _stream(seed, index // config.num_cues)
    layout = next((found for _ in range(_TRIES) if (found := _place(config, stream))), None)
    if layout is None:
        hint = "use fewer shapes, a larger size or a wider range"
        raise InputError(f"{config}: no room for {config.num_shapes} shapes so far from what tells their class; {hint}")
    cells, placed = layout
    keys = np.array([shape.key for shape in placed])
    shapes = np.zeros((config.size,) * config.dims, dtype=np.uint8)
    grid = np.ogrid[(slice(config.size),) * config.dims]
    for number, (centre, radius, is_ball, _) in enumerate(placed, start=1):
        offsets = [axis - x for axis, x in zip(grid, centre, strict=True)]
        if is_ball:
            shapes[sum(offset**2 for offset in offsets) <= radius**2] = number
        else:
            shapes[reduce(and_, (abs(offset) < radius for offset in offsets))] = number
    distances = np.array([np.sqrt(_squared_distance(config, cells[s.key], s.centre) / 4) for s in placed])

    if isinstance(config, LegendConfig):
        values = 1 + (_below(stream, 2**MAX_KEYS) >> np.arange(config.num_keys) & 1 ^ index % 2)
        hues = np.array(HUES)[np.arange(config.num_keys) * MAX_KEYS // config.num_keys]  # (K, 3)
        halves = np.stack([hues, np.array(VALUES)[values - 1, None].repeat(3, axis=1)], axis=1)  # (K, 2, 3)
        patterns, colours = halves.repeat(CELL // 2, axis=1), hues[keys]  # (K, CELL, 3): a row of each cell
    else:
        values = np.array([index % config.num_cues + 1])
        patterns = np.array(config.colours)[values - 1]  # (1, C)
        colours = np.full((len(placed), patterns.shape[-1]), SHAPE)
    image = np.full((*shapes.shape, patterns.shape[-1]), BACKGROUND, dtype=np.int32)
    image[shapes > 0] = colours[shapes[shapes > 0] - 1]
    for corner, pattern in zip(cells, patterns, strict=True):
        image[tuple(slice(c, c + config.cue_size) for c in corner)] = pattern
    image += _noise(_stream(seed, index, part=1), image.shape, config.noise)
    image = np.moveaxis(np.clip(image, 0, 255).astype(np.uint8), -1, 0)
    label = np.append(0, values[keys]).astype(np.uint8)[shapes]
    return Scene(image, label, shapes, distances, cells, values, keys)


class CueScenes:
    """Scenes as a segmentation data set, drawn when asked for. ``[i]`` is (image, label), uint8 tensors."""

    ignore_index = 255

    def __init__(self, config: SceneConfig | LegendConfig, count: int, seed: int) -> None:
        self.config, self.count, self.seed = config, count, seed
        self.classes = ("background", *config.names[: config.num_cues])
        self.palette = ((SHAPE // 2,) * 3, *config.palette[: config.num_cues])

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"scene-{self.seed}-{index}"

    def scene(self, index: int) -> Scene:
        """Return scene ``index`` as `draw_scene` does; IndexError past the end."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return draw_scene(self.config, self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = self.scene(index)
        return torch.from_numpy(scene.image.copy()), torch.from_numpy(scene.label.copy())


class CueVolumes(CueScenes):
    """Cue volumes as a `VolumeDataset`: ``[i]`` is image float32 (1, D, H, W), label uint8 (D, H, W)."""

    sided, preprocessing = False, None

    def spacing(self, index: int) -> tuple[float, float, float]:
        return (1.0, 1.0, 1.0)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = super().__getitem__(index)
        # fixed: a volume's own mean and deviation depend on the cue, and would tell it everywhere
        return (image.float() - 128) / 64, label

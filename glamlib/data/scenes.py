"""Generated scenes, in the plane or in space: shapes whose class only a distant cue tells.

A scene holds grey shapes and, somewhere else, one tile: the cue. All shapes of a scene have the class that the tile's
colour stands for, so a model must carry the colour from the tile to the shapes. The background and the tile are class
0. Volumes have one channel: there the tile is darker or brighter than everything else.

A scene depends on its configuration, a seed and an index alone. It is drawn with integers from the raw words of a
Philox counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), whose stream numpy guarantees,
so it is the same on every platform.
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
# Fixed: a volume's own mean and deviation depend on the cue, and would tell it everywhere.
GREY_MEAN = 128
GREY_DEVIATION = 64

Place = tuple[int, ...]
_TRIES = 200


@dataclass(frozen=True)
class SceneConfig(Checked):
    """What scenes look like; lengths in pixels."""

    role: ClassVar[str] = "option of data"
    dims: ClassVar[int] = 2
    smallest_radius: ClassVar[int] = 4
    colours: ClassVar[tuple] = CUE_COLOURS

    size: Annotated[int, Range(16, 4096)] = 64  # side of the image
    num_shapes: Annotated[int, Range(1, 200)] = 4
    num_cues: Annotated[int, Range(2, len(CUE_COLOURS))] = 2  # cue colours, and so classes beside the background
    cue_size: Annotated[int, Range(1)] = 9  # side of the tile
    noise: Annotated[int, Range(0, 64)] = 16  # standard deviation, in grey values
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
    colours: ClassVar[tuple] = CUE_GREYS

    size: Annotated[int, Range(16, 256)] = 32
    num_cues: Annotated[int, Range(2, len(CUE_GREYS))] = 2
    cue_size: Annotated[int, Range(1)] = 5


class Scene(NamedTuple):
    """One scene, of uint8 arrays."""

    image: np.ndarray  # (C, *size), C = 3 or 1
    label: np.ndarray  # (*size)
    shapes: np.ndarray  # (*size): 0 or the shape's number from 1
    distances: np.ndarray  # (num_shapes,) float64, in pixels from the cue's centre to each shape's
    cue: int  # its class, from 1


def _below(stream: np.random.Philox, limit: int) -> int:
    return int(stream.random_raw()) % limit


def _noise(stream: np.random.Philox, shape: tuple[int, ...], deviation: int) -> np.ndarray:
    """Return nearly Gaussian integers: the sum of four uniform bytes, centred, scaled to ``deviation``, floored."""
    count = int(np.prod(shape))
    raw = stream.random_raw((count + 1) // 2).astype("<u8")  # 8 bytes: two values
    words = raw.view("<u4")[:count]
    # shifts, not numpy's sum over an axis of four bytes, which takes seven times as long
    total = sum((words >> shift) & 255 for shift in (0, 8, 16, 24)).astype(np.int32) - 510
    return (total * deviation // 148).reshape(shape)  # 4 uniform bytes: variance 4 * (256**2 - 1) / 12 = 147.8**2


def _squared_distance(config: SceneConfig, corner: Place, centre: Place) -> int:
    """Return four times the squared distance from the centre of the tile with this ``corner`` to ``centre``."""
    return sum((2 * c + config.cue_size - 1 - 2 * x) ** 2 for c, x in zip(corner, centre, strict=True))


def _place(config: SceneConfig, stream: np.random.Philox) -> tuple[Place, list[tuple[Place, int, bool]]] | None:
    """Return the tile's corner and each shape's (centre, radius, is_ball), none touching; None if one finds no room."""
    size, side = config.size, config.cue_size
    corner = tuple(_below(stream, size - side + 1) for _ in range(config.dims))
    low, high = 4 * config.min_distance**2, 4 * (config.max_distance or 2 * size) ** 2
    placed: list[tuple[Place, int, bool]] = []
    for _ in range(config.num_shapes):
        radius, is_ball = config.smallest_radius + _below(stream, 3), bool(_below(stream, 2))
        for _ in range(_TRIES):
            centre = tuple(radius + _below(stream, size - 2 * radius) for _ in range(config.dims))
            free = all(max(abs(x - y) for x, y in zip(centre, c, strict=True)) > radius + r for c, r, _ in placed)
            clear = any(x + radius < c or x - radius >= c + side for x, c in zip(centre, corner, strict=True))
            if free and clear and low <= _squared_distance(config, corner, centre) <= high:
                placed.append((centre, radius, is_ball))
                break
        else:
            return None
    return corner, placed


def draw_scene(config: SceneConfig, seed: int, index: int) -> Scene:
    """Return the scene of (seed, index); InputError where the shapes and the cue find no room."""
    stream = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))
    layout = next((found for _ in range(_TRIES) if (found := _place(config, stream))), None)
    if layout is None:
        hint = "use fewer shapes, a larger size or a wider range"
        raise InputError(f"{config}: no room for {config.num_shapes} shapes at these distances from the cue; {hint}")
    corner, placed = layout
    shapes = np.zeros((config.size,) * config.dims, dtype=np.uint8)
    grid = np.ogrid[(slice(config.size),) * config.dims]
    for number, (centre, radius, is_ball) in enumerate(placed, start=1):
        offsets = [axis - x for axis, x in zip(grid, centre, strict=True)]
        if is_ball:
            shapes[sum(offset**2 for offset in offsets) <= radius**2] = number
        else:
            shapes[reduce(and_, (abs(offset) < radius for offset in offsets))] = number
    distances = np.array([np.sqrt(_squared_distance(config, corner, centre) / 4) for centre, _, _ in placed])

    cue = _below(stream, config.num_cues) + 1
    image = np.full((*shapes.shape, len(config.colours[0])), BACKGROUND, dtype=np.int32)
    image[shapes > 0] = SHAPE
    image[tuple(slice(c, c + config.cue_size) for c in corner)] = config.colours[cue - 1]
    image = np.clip(image + _noise(stream, image.shape, config.noise), 0, 255).astype(np.uint8)
    label = np.where(shapes > 0, cue, 0).astype(np.uint8)
    return Scene(np.moveaxis(image, -1, 0), label, shapes, distances, cue)


# Evaluation asks for a batch of images, then for what else is known of each.
_drawn = lru_cache(maxsize=64)(draw_scene)


class CueScenes:
    """Scenes as a segmentation data set, drawn when asked for. ``[i]`` is (image, label), uint8 tensors."""

    ignore_index = 255

    def __init__(self, config: SceneConfig, count: int, seed: int) -> None:
        self.config, self.count, self.seed = config, count, seed
        self.classes = ("background", *(f"cue {i + 1}" for i in range(config.num_cues)))
        self.palette = ((SHAPE // 2,) * 3, *CUE_COLOURS[: config.num_cues])

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """Return a name that tells the seed and the index."""
        return f"scene-{self.seed}-{index}"

    def scene(self, index: int) -> Scene:
        """Return scene ``index``, whose arrays are cached: do not write into them. IndexError past the end."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _drawn(self.config, self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = self.scene(index)
        return torch.from_numpy(scene.image.copy()), torch.from_numpy(scene.label.copy())


class CueVolumes(CueScenes):
    """Cue volumes as a `VolumeDataset`: ``[i]`` is image float32 (1, D, H, W), label uint8 (D, H, W)."""

    sided, preprocessing = False, None

    def __init__(self, config: CueVolumeConfig, count: int, seed: int) -> None:
        super().__init__(config, count, seed)
        self.classes = ("background", "dark cue", "bright cue")
        self.palette = ((SHAPE // 2,) * 3, (0, 114, 178), (240, 228, 66))

    def spacing(self, index: int) -> tuple[float, float, float]:
        """Return the sides of a voxel, which are 1 and mean nothing in mm."""
        return (1.0, 1.0, 1.0)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = super().__getitem__(index)
        return (image.float() - GREY_MEAN) / GREY_DEVIATION, label

"""Where the cue and the shapes of a generated scene lie, in the plane or in space, drawn the same on every platform.

Everything is drawn with integers from the raw words of a Philox counter (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011), whose stream numpy guarantees.
"""

from functools import reduce
from operator import and_
from typing import NamedTuple, Protocol

import numpy as np

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

"""Patches of a volume under an affine map, in numpy and torch.

As scipy.ndimage's ``affine_transform`` of order 1 and 0 with ``mode="constant"`` (tested), which is not used because
training must also work on a GPU machine that has little more than torch.


MERGED: Training patches of volumes: where they are cut, and how they are varied.

What is varied follows the released 3D configurations (MONAI: flips, rotation, scaling, intensity, noise); the numbers
are a study's choice. All random numbers come from the generator that a call is given.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glamlib.data.transforms import VOID
from glamlib.data.volumes import LEFT_RIGHT, VolumeDataset
from glamlib.errors import InputError, one_of


def places(matrix: np.ndarray, offset: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Return where a patch's voxels o lie in the volume, ``matrix @ o + offset``: float64 (3, *size)."""
    axes = np.ogrid[tuple(slice(n) for n in size)]
    return np.stack(
        [sum(row[k] * axes[k] for k in range(3)) + start for row, start in zip(matrix, offset, strict=True)]
    )


def sample_linear(values: np.ndarray, at: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return ``values`` (C, D, H, W) float32 at `places` (3, *size), interpolated linearly: float32 (C, *size).

    Beyond the outermost voxels' centres a channel has its value of ``outside`` (C,).
    """
    shape = values.shape[1:]
    grid = np.stack([at[k] / max(shape[k] - 1, 1) * 2 - 1 for k in (2, 1, 0)], axis=-1).astype(np.float32)
    found = F.grid_sample(
        torch.from_numpy(values)[None], torch.from_numpy(grid)[None], padding_mode="border", align_corners=True
    )[0].numpy()
    return np.where(_inside(at, shape), found, np.asarray(outside, np.float32)[:, None, None, None])


def sample_nearest(values: np.ndarray, at: np.ndarray, outside: int) -> np.ndarray:
    """Return ``values`` (D, H, W) at the voxels nearest to `places` (3, *size), beyond as in `sample_linear`."""
    index = np.zeros(at.shape[1:])  # into the flat volume: taking from it is faster than by three indices
    for place, side in zip(at, values.shape, strict=True):
        index = index * side + np.clip(np.floor(place + 0.5), 0, side - 1)
    found = values.reshape(-1).take(index.astype(np.intp))
    return np.where(_inside(at, values.shape), found, values.dtype.type(outside))


def _inside(at: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return whether `places` (3, *size) lie among the voxels' centres: bool (*size)."""
    last = np.array(shape)[:, None, None, None] - 1
    return ((at >= 0) & (at <= last)).all(axis=0)


@dataclass(frozen=True)
class VolumeTransform:
    """Cut a patch from a volume and vary it. `for_dataset` makes one that mirrors along the axes it may.

    Args:
        patch_size: (depth, height, width) of what comes out, in voxels.
        foreground: share of the patches that are laid around a voxel of a structure: of one of those that the volume
            has, all equally likely, however small. The other patches lie anywhere.
        flip_axes: axes of (D, H, W) along which a patch may be mirrored.
        flip: probability of a mirror along each of them.
        rotate: the largest angle in degrees, either way, about each axis; meant for voxels that are nearly cubes.
        scale: range of the factor by which structures grow.
        intensity: the image is multiplied by a factor of 1 - intensity to 1 + intensity, and a shift of -intensity to
            intensity is added (units of the normalised image).
        noise: the largest standard deviation of the Gaussian noise, in the same units.

    Raises InputError for values outside these meanings.
    """

    patch_size: tuple[int, int, int]
    foreground: float = 0.5
    flip_axes: tuple[int, ...] = ()
    flip: float = 0.5
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    intensity: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("patch_size", "flip_axes", "scale"):  # lists, where they come from JSON
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        sides = self.patch_size
        if not (isinstance(sides, tuple) and len(sides) == 3 and all(type(n) is int and n > 0 for n in sides)):
            _refuse("patch_size", sides, "(depth, height, width), three whole numbers above 0")
        if not isinstance(self.flip_axes, tuple) or not set(self.flip_axes) <= {0, 1, 2}:
            _refuse("flip_axes", self.flip_axes, "some of 0 (depth), 1 (height), 2 (width)")
        scale = self.scale
        if not (isinstance(scale, tuple) and len(scale) == 2 and all(_within(s, 0.01, 100) for s in scale)):
            _refuse("scale", scale, "(low, high), factors from 0.01 to 100")
        if scale[0] > scale[1]:
            _refuse("scale", scale, "(low, high) with low <= high")
        for name, high in (("foreground", 1), ("flip", 1), ("rotate", 180), ("intensity", 1), ("noise", 10)):
            if not _within(getattr(self, name), 0, high):
                _refuse(name, getattr(self, name), f"a number from 0 to {high}")

    @classmethod
    def for_dataset(cls, dataset: VolumeDataset, **options: object) -> "VolumeTransform":
        """Return a transform that mirrors along all axes, but never left to right where ``dataset`` is sided.

        Args:
            dataset: says whether it is sided.
            options: the attributes; ``flip_axes`` to mirror along fewer axes.

        Raises InputError for an unknown option, and for ``flip_axes`` that would exchange the sides.
        """
        allowed = [field.name for field in fields(cls)]
        for option in options:
            if option not in allowed:
                raise one_of("option of VolumeTransform", option, allowed)
        if "patch_size" not in options:
            raise InputError("VolumeTransform: patch_size is missing")
        side = LEFT_RIGHT if dataset.sided else None
        made = cls(**{"flip_axes": tuple(axis for axis in range(3) if axis != side), **options})
        if side in made.flip_axes:
            _refuse("flip_axes", made.flip_axes, f"axes without {side}, left to right: the labels have sides")
        return made

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new tensors (C, *patch_size) and (*patch_size) from an image (C, D, H, W) and its label (D, H, W).

        Where the patch reaches beyond the volume, because that is smaller or by rotation, the image has its channel's
        smallest value, which is what surrounds a body or head, and the label 255: what lies there is not known, and a
        network should not be taught that it is background.
        """
        if image.shape[1:] != label.shape:
            raise InputError(f"image {tuple(image.shape)} and label {tuple(label.shape)} differ in shape")
        values, classes = image.numpy(), label.numpy()
        start = self._start(classes, rng)
        outside = values.min(axis=(1, 2, 3))
        if self.rotate or self.scale != (1.0, 1.0):
            angles = np.radians(rng.uniform(-self.rotate, self.rotate, size=3))
            matrix = _rotation(angles) / rng.uniform(*self.scale)
            middle = (np.array(self.patch_size) - 1) / 2
            offset = start + middle - matrix @ middle
            at = places(matrix, offset, self.patch_size)
            values, classes = sample_linear(values, at, outside), sample_nearest(classes, at, VOID)
        else:
            values = np.stack([self._crop(v, start, low) for v, low in zip(values, outside, strict=True)])
            classes = self._crop(classes, start, VOID)
        mirrored = [axis for axis in self.flip_axes if rng.random() < self.flip]
        values, classes = np.flip(values, [axis + 1 for axis in mirrored]), np.flip(classes, mirrored)
        if self.intensity:
            factor, shift = rng.uniform(-self.intensity, self.intensity, size=2)
            values = values * np.float32(1 + factor) + np.float32(shift)
        if self.noise:
            values = values + np.float32(rng.uniform(0, self.noise)) * rng.standard_normal(values.shape, np.float32)
        return torch.from_numpy(np.ascontiguousarray(values)), torch.from_numpy(np.ascontiguousarray(classes))

    def _start(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw the patch's first voxel; below 0 along the axes where the volume is smaller, so that it is centred."""
        spare = np.array(label.shape) - self.patch_size
        start = rng.integers(np.maximum(spare, 0) + 1)
        if rng.random() < self.foreground:
            counts = np.bincount(label.reshape(-1), minlength=VOID + 1)
            present = np.flatnonzero(counts[1:VOID]) + 1
            if present.size:
                number = rng.choice(present)
                which = np.flatnonzero(label.reshape(-1) == number)[rng.integers(counts[number])]
                voxel = np.array(np.unravel_index(which, label.shape))
                start = np.clip(voxel - np.array(self.patch_size) // 2, 0, np.maximum(spare, 0))
        return np.where(spare < 0, spare // 2, start)

    def _crop(self, values: np.ndarray, start: np.ndarray, outside: float) -> np.ndarray:
        """Return a new array of the patch that begins at ``start``."""
        stop = start + self.patch_size
        patch = np.full(self.patch_size, outside, dtype=values.dtype)
        inside = tuple(slice(max(a, 0), b) for a, b in zip(start, stop, strict=True))
        found = values[inside]
        patch[tuple(slice(max(-a, 0), max(-a, 0) + n) for a, n in zip(start, found.shape, strict=True))] = found
        return patch


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) by ``angles`` (3,), in radians, about the axes in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (other for other in range(3) if other != axis)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _within(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _refuse(name: str, value: object, allowed: str) -> None:
    raise InputError(f"{name} {value!r} cannot be used; allowed: {allowed}")

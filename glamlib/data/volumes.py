"""Volumes: NIfTI files as arrays in one orientation, their preprocessing, and the data set over them.

Axes are (depth, height, width) = (inferior to superior, posterior to anterior, left to right); spacings are in mm in
that order.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from glamlib.data.images import spans, voc_colour
from glamlib.data.transforms import VOID
from glamlib.errors import InputError, Range

Length = Annotated[float, Range(0.01, 100)]
Spacing = tuple[Length, Length, Length]  # of voxels, in mm
LEFT_RIGHT = 2  # the axis of (D, H, W) along which a sided volume must not be mirrored
_IN_MM = {"meter": 1000.0, "micron": 0.001}  # units that NIfTI knows beside mm; "unknown" is taken for mm


class Volume(NamedTuple):
    """A file's values (D, H, W) in canonical axes, the sides of a voxel in mm, and the affine.

    The affine (4, 4) takes the voxel (x, y, z) = (w, h, d) to mm, as nibabel's "RAS+" affines do.
    """

    values: np.ndarray
    spacing: Spacing
    affine: np.ndarray


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file of any orientation, numeric type and unit. Axes of length 1 behind the third are dropped.

    Raises InputError, naming the file, if it is missing or damaged, has not three axes or no voxels, holds values that
    are not finite real numbers, or has no usable affine.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:  # to the end, where the checksum is: nibabel stops before it
                while file.read(1 << 20):
                    pass
        image = nib.funcs.squeeze_image(nib.load(path))
        if image.ndim != 3 or 0 in image.shape:
            raise InputError(f"{path}: {image.ndim} axes ({_by(image.shape)}); allowed: volumes of three axes")
        in_mm = np.diag([_IN_MM.get(image.header.get_xyzt_units()[0], 1.0)] * 3 + [1.0])
        if not np.isfinite(image.affine).all() or abs(np.linalg.det(in_mm @ image.affine)) < 1e-12:
            raise InputError(f"{path}: its affine maps no voxel to a place; allowed: an invertible one")
        image = nib.as_closest_canonical(image)
        values = np.asanyarray(image.dataobj)
    except InputError:
        raise
    except Exception as error:  # of many types, depending on where the damage lies
        reason = " ".join(str(error).split()) or type(error).__name__  # nibabel's may have several lines
        raise InputError(f"{path}: cannot be read as NIfTI ({reason})") from error
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: values of type {values.dtype}; allowed: whole or real numbers")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite")
    affine = in_mm @ image.affine
    width, height, depth = nib.affines.voxel_sizes(affine).tolist()
    return Volume(np.ascontiguousarray(values.T), (depth, height, width), affine)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


@dataclass(frozen=True)
class Labels:
    """What a set's label values mean: class names, the background first; the class number of every value in the files;
    whether the classes, or the places of the organs, tell left from right."""

    classes: tuple[str, ...]
    numbers: Mapping[int, int]
    sided: bool

    def decode(self, path: Path, values: np.ndarray) -> np.ndarray:
        """Return class numbers, uint8 (D, H, W), of a file's ``values``; InputError for one that is not known.

        Real numbers within 0.001 of an integer are that integer: tools that resample labels write 0.99999994.
        """
        found = np.unique(values)
        near = [(value, round(value)) for value in found.tolist()]
        numbers = [self.numbers.get(n) if abs(value - n) <= 1e-3 else None for value, n in near]
        unknown = [f"{value:.9g}" for (value, _), number in zip(near, numbers, strict=True) if number is None]
        if unknown:
            more = ", ..." if len(unknown) > 5 else ""
            raise InputError(
                f"{path}: unknown label value(s) {', '.join(unknown[:5])}{more}; allowed: {spans(self.numbers)}"
            )
        return np.array(numbers, np.uint8)[np.searchsorted(found, values)]


class Case(NamedTuple):
    """An image and its label in two NIfTI files."""

    name: str
    image: Path
    label: Path

    def read(self, labels: Labels) -> tuple[np.ndarray, np.ndarray, Spacing]:
        """Return image values and class numbers, both (D, H, W), and the spacing in mm.

        The two may be stored in different orientations; InputError if their corners lie more than a tenth of a voxel
        apart, if a file is bad, if the image has one value only, or for a label value that is not known.
        """
        image, label = read_volume(self.image), read_volume(self.label)
        shape = image.values.shape
        differ = f"{self.image} and {self.label.name} differ in"
        if shape != label.values.shape:
            raise InputError(
                f"{differ} shape: {_by(shape)} and {_by(label.values.shape)} voxels (depth x height x width)"
            )
        corners = np.indices((2, 2, 2)).reshape(3, 8).T * (np.array(shape[::-1]) - 1)  # (x, y, z) of voxels
        apart = np.linalg.norm(nib.affines.apply_affine(image.affine - label.affine, corners), axis=1).max()
        if apart > 0.1 * min(image.spacing):
            raise InputError(f"{differ} affine: voxels lie up to {apart:.3g} mm apart")
        if image.values.min() == image.values.max():
            raise InputError(f"{self.image}: all voxels have one value")
        return image.values, labels.decode(self.label, label.values), image.spacing


def z_score(values: np.ndarray) -> np.ndarray:
    """Return float32 with the mean and deviation of the voxels that are not 0 taken out of all voxels.

    MR intensities have no unit and differ from scan to scan; 0 is what lies outside a stripped or cropped volume.
    """
    inside = values[values != 0].astype(np.float64)
    return ((values - inside.mean()) / (inside.std() or 1.0)).astype(np.float32)


def window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return float32 with ``values`` clipped to low..high (CT: Hounsfield units) and mapped to -1..1."""
    return (np.clip(values, low, high).astype(np.float32) - low) / (high - low) * 2 - 1


def resample_image(values: np.ndarray, old: Spacing, new: Spacing) -> np.ndarray:
    """Return ``values`` (D, H, W) as float32 in voxels of ``new`` mm, by linear interpolation.

    The volume keeps its centre, and its extent but for the rounding to whole voxels. Along axes whose voxels grow by a
    factor f it is smoothed first (Gaussian, deviation (f - 1) / 2 old voxels), against aliasing.
    """
    factor = np.divide(new, old)
    values = ndimage.gaussian_filter(values.astype(np.float32), np.maximum(factor - 1, 0) / 2, mode="nearest")
    have = np.array(values.shape)
    want = np.maximum(np.round(have / factor), 1).astype(int)
    offset = (have - 1) / 2 - factor * (want - 1) / 2
    return ndimage.affine_transform(values, factor, offset, tuple(want), order=1, mode="nearest")


def resample_label(label: np.ndarray, old: Spacing, new: Spacing) -> np.ndarray:
    """Return class numbers ``label`` (D, H, W) in voxels of ``new`` mm: each takes the class with the largest share.

    The shares are the classes' masks, resampled as `resample_image` does; nearest neighbour would leave jagged borders.
    """
    best, most = np.zeros((), label.dtype), np.float32(-1)
    for number in np.unique(label):  # one mask at a time: all at once would not fit
        share = resample_image(label == number, old, new)
        best, most = np.where(share > most, number, best), np.maximum(share, most)
    return best


class FileVolumes:
    """A `VolumeDataset` over files, which are opened when an item is asked for; the InputError of a bad one names it.

    Args:
        cases: the files.
        labels: what their values mean.
        normalise: maps the image's values (D, H, W) to float32.
        spacing: (depth, height, width) in mm to resample every item to; None keeps each file's own.
    """

    ignore_index = VOID

    def __init__(
        self,
        cases: Sequence[Case],
        labels: Labels,
        normalise: Callable[[np.ndarray], np.ndarray],
        *,
        spacing: Spacing | None = None,
    ) -> None:
        self.cases = cases
        self.labels = labels
        self.classes = labels.classes
        self.palette = tuple(voc_colour(number) for number in range(len(labels.classes)))
        self.sided = labels.sided
        self._normalise = normalise
        self._spacing = spacing
        self._own: dict[int, Spacing] = {}  # of the items read so far

    def __len__(self) -> int:
        return len(self.cases)

    def name(self, index: int) -> str:
        """Return the name of case ``index``."""
        return self.cases[index].name

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""
        return self._spacing or self._own.get(index) or read_volume(self.cases[index].image).spacing

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label, own = self.cases[index].read(self.labels)
        self._own[index] = own
        image = self._normalise(image)
        if self._spacing and not np.allclose(self._spacing, own, rtol=1e-3):
            image, label = resample_image(image, own, self._spacing), resample_label(label, own, self._spacing)
        return torch.from_numpy(image)[None], torch.from_numpy(label)

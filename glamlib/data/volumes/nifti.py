"""NIfTI files as arrays: in one orientation, with their spacing, and with one clear error for whatever is wrong."""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamlib.data.folder import Pair
from glamlib.errors import InputError

Spacing = tuple[float, float, float]


class Volume(NamedTuple):
    """A file's values (D, H, W) in canonical axes, the sides of a voxel in mm in that order, and the affine.

    The axes run from inferior to superior, posterior to anterior, left to right. The affine (4, 4) takes the voxel
    (x, y, z) = (w, h, d) to mm, as nibabel's "RAS+" affines do.
    """

    values: np.ndarray
    spacing: Spacing
    affine: np.ndarray


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file of any orientation and numeric type.

    Axes of length 1 behind the third are dropped. Raises InputError, naming the file, if it is missing or damaged, has
    not three axes or no voxels, holds values that are not finite real numbers, or has no usable affine; or
    without nibabel.
    """
    try:
        import nibabel as nib  # here: most of glamlib reads no NIfTI
    except ImportError:
        raise InputError(f"{path}: nibabel is not installed; glamlib.data.volumes.pack makes what needs none") from None
    try:
        if path.suffix == ".gz":
            _check_sum(path)
        image = nib.funcs.squeeze_image(nib.load(path))
        shape, affine = image.shape, image.affine
        if len(shape) != 3:
            raise InputError(f"{path}: {len(shape)} axes ({_by(shape)}); allowed: volumes of three axes")
        if 0 in shape:
            raise InputError(f"{path}: no voxels ({_by(shape)})")
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise InputError(f"{path}: its affine maps no voxel to a place; allowed: an invertible one")
        canonical = nib.as_closest_canonical(image)
        values = np.asanyarray(canonical.dataobj)
    except InputError:
        raise
    # What nibabel, gzip and numpy raise for damaged files, by where the damage lies.
    except (
        *(OSError, EOFError, zlib.error, ValueError, TypeError, ArithmeticError, MemoryError),
        *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.orientations.OrientationError),
    ) as e:
        reason = " ".join(str(e).split()) or type(e).__name__  # nibabel's may have several lines
        raise InputError(f"{path}: cannot be read as NIfTI ({reason})") from e
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: values of type {values.dtype}; allowed: whole or real numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite")
    width, height, depth = nib.affines.voxel_sizes(canonical.affine).tolist()
    return Volume(np.ascontiguousarray(values.T), (depth, height, width), canonical.affine)


class NiftiCase(Pair):
    """A case in two NIfTI files; see `glamlib.data.volumes.case.Case`."""

    def spacing(self) -> Spacing:
        """Return the sides (depth, height, width) of a voxel in mm."""
        return read_volume(self.image).spacing

    def read(self) -> tuple[np.ndarray, np.ndarray, Spacing]:
        """Return image values and label values, both (D, H, W), and the spacing.

        Raises InputError if a file is bad or if the two lie on different voxels.
        """
        image, label = read_volume(self.image), read_volume(self.label)
        check_same_grid(self, image, label)
        return image.values, label.values, image.spacing


def _check_sum(path: Path) -> None:
    """Read a gzip file to its end, where its checksum is; nibabel stops before it, and would return damaged voxels."""
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass


def class_numbers(path: Path, values: np.ndarray, numbers: Mapping[int, int]) -> np.ndarray:
    """Return the class numbers, uint8 (D, H, W), of a file's label ``values``; InputError for a value not in the map.

    Args:
        path: the file, for the message.
        values: (D, H, W) of any numeric type.
        numbers: class number by label value.
    """
    found = np.unique(values).tolist()
    unknown = [value for value in found if value not in numbers]
    if unknown:
        more = ", ..." if len(unknown) > 5 else ""
        listed = ", ".join(f"{value:g}" for value in unknown[:5])
        raise InputError(f"{path}: unknown label value(s) {listed}{more}; allowed: {_ranges(numbers)}")
    lowest = int(found[0])
    table = np.zeros(int(found[-1]) - lowest + 1, dtype=np.uint8)
    for value in found:
        table[int(value) - lowest] = numbers[value]
    return table[values.astype(np.int64) - lowest]


def check_same_grid(pair: Pair, image: Volume, label: Volume) -> None:
    """Raise an InputError that names both files unless their voxels are the same places.

    They may be stored in different orientations; what is compared is their shape and the corners in mm, which may lie a
    tenth of a voxel apart.
    """
    if image.values.shape != label.values.shape:
        have = " and ".join(_by(volume.values.shape) for volume in (image, label))
        raise InputError(f"{pair.image} and {pair.label.name} differ in shape: {have} voxels (depth x height x width)")
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(image.values.shape[::-1])[:, None] - 1)
    apart = (image.affine - label.affine)[:3] @ np.vstack([corners, np.ones(8)])
    distance = np.linalg.norm(apart, axis=0).max()
    if distance > 0.1 * min(image.spacing):
        raise InputError(
            f"{pair.image} and {pair.label.name} differ in affine: the same voxel lies up to {distance:.3g} mm apart"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _ranges(numbers: Mapping[int, int]) -> str:
    """Return the keys as text, runs of them as "first..last"."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)

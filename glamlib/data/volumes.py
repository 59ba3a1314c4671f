"""NIfTI files as arrays: in one orientation, with their spacing, and with one clear error for whatever is wrong.

MERGED: From a scanner's voxels to a network's: intensities normalised, voxels of one size.

scipy.ndimage does the interpolation: nothing here needs more, and data preparation then needs no torch.

MERGED: Which files belong to which case, which cases to which split. No file is opened but lists of names.

MERGED: What every data set of volumes offers, and the one that reads files.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from glamlib.data.images import NAMED, Pair, voc_colour
from glamlib.data.transforms import VOID
from glamlib.errors import InputError, one_of

Spacing = tuple[float, float, float]
LEFT_RIGHT = 2  # the axis of (D, H, W) along which a sided volume must not be mirrored


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


def check_spacing(spacing: object) -> Spacing:
    """Return ``spacing`` as three floats in mm (depth, height, width); InputError unless three numbers above 0."""
    numbers = isinstance(spacing, tuple | list) and len(spacing) == 3
    if not numbers or not all(type(side) in (int, float) and 0 < side < np.inf for side in spacing):
        raise InputError(f"spacing {spacing!r} cannot be used; allowed: (depth, height, width), three mm above 0")
    depth, height, width = map(float, spacing)
    return depth, height, width


def z_score(values: np.ndarray) -> np.ndarray:
    """Return float32 with the mean and deviation of the voxels that are not 0 taken out of all voxels.

    MR intensities have no unit, and differ from scan to scan; 0 is what lies outside a stripped or cropped volume (the
    released 3D code normalises non-zero voxels too). Raises InputError where those voxels all have one value.
    """
    inside = values[values != 0].astype(np.float64)
    deviation = inside.std() if inside.size else 0.0
    if deviation == 0:
        raise InputError("all voxels that are not 0 have one value: there is nothing to see")
    return ((values - inside.mean()) / deviation).astype(np.float32)


def window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return float32 with ``values`` clipped to low..high (CT: Hounsfield units) and mapped to -1..1."""
    clipped = np.clip(values, low, high).astype(np.float32)
    return (clipped - low) / (high - low) * 2 - 1


def resample_image(values: np.ndarray, old: Spacing, new: Spacing) -> np.ndarray:
    """Return ``values`` (D, H, W) as float32 in voxels of ``new`` mm, by linear interpolation.

    The volume keeps its centre, and its extent but for the rounding to whole voxels. Along axes whose voxels grow by a
    factor f it is smoothed first (Gaussian, deviation (f - 1) / 2 old voxels), against aliasing.
    """
    from scipy import ndimage

    old_side, new_side = np.array(old), np.array(new)
    values = values.astype(np.float32)
    if np.allclose(old_side, new_side, rtol=1e-3):
        return values
    factor = new_side / old_side
    values = ndimage.gaussian_filter(values, np.maximum(factor - 1, 0) / 2, mode="nearest")
    have = np.array(values.shape)
    want = np.maximum(np.round(have / factor), 1).astype(int)
    offset = (have - 1) / 2 - factor * (want - 1) / 2
    return ndimage.affine_transform(values, factor, offset, tuple(want), order=1, mode="nearest")


def resample_label(label: np.ndarray, old: Spacing, new: Spacing) -> np.ndarray:
    """Return class numbers ``label`` (D, H, W) in voxels of ``new`` mm: each takes the class with the largest share.

    The shares are the classes' masks, resampled as `resample_image` does; nearest neighbour would leave jagged borders.
    """
    if np.allclose(old, new, rtol=1e-3):
        return label
    best, most = None, None
    for number in np.unique(label):  # one mask at a time: all at once would not fit
        share = resample_image(label == number, old, new)
        if best is None:
            best, most = np.full(share.shape, number, dtype=label.dtype), share
        else:
            best[share > most] = number
            most = np.maximum(share, most)
    return best


@dataclass
class Layout:
    """What lies in a data set's folder.

    Attributes:
        folder: where the images lie.
        pairs: image and label by the name of the case, sorted.
        splits: names of the cases of each split; not all of them need be there.
        problems: one line for each file without a partner, and for each name of a split without files.
    """

    folder: Path
    pairs: dict[str, NiftiCase]
    splits: dict[str, list[str]]
    problems: list[str] = field(default_factory=list)

    def select(self, split: str) -> list[NiftiCase]:
        """Return the pairs of a split; InputError for an unknown split, or if anything is missing."""
        if split not in self.splits:
            raise one_of("split", split, self.splits)
        if self.problems:
            more = "; ..." if len(self.problems) > NAMED else ""
            raise InputError(
                f"{self.folder}: {len(self.problems)} problem(s): {'; '.join(self.problems[:NAMED])}{more}"
            )
        return [self.pairs[name] for name in self.splits[split]]


def match_volumes(
    images: Path, image_name: str, labels: Path, label_name: str
) -> tuple[dict[str, NiftiCase], list[str]]:
    """Pair the .nii and .nii.gz files of two folders by what their names have in common.

    Args:
        images: folder of the images.
        image_name: pattern of an image's whole name without .nii or .nii.gz; its first group names the case.
        labels, label_name: the same of the labels; may be the same folder.

    Returns the pairs by case and one line for every file that has no partner or whose case has two. Other files and
    hidden ones do not count. Raises InputError if a folder is missing or holds no image.
    """
    problems: list[str] = []
    image_files, label_files = (
        _by_case(folder, name, problems) for folder, name in ((images, image_name), (labels, label_name))
    )
    pairs = {case: NiftiCase(case, image_files[case], label_files[case]) for case in image_files if case in label_files}
    problems += [f"image {file.name} has no label" for case, file in image_files.items() if case not in pairs]
    problems += [f"label {file.name} has no image" for case, file in label_files.items() if case not in pairs]
    if not image_files and not label_files:
        raise InputError(f"{images}: no .nii or .nii.gz files of the expected names")
    return pairs, problems


def _by_case(folder: Path, name: str, problems: list[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        found = re.fullmatch(rf"{name}\.nii(\.gz)?", file.name)
        if found and not file.name.startswith("."):
            if found[1] in files:
                problems.append(f"{file.name} is the same case as {files[found[1]].name}")
            files.setdefault(found[1], file)
    return files


def read_names(path: Path) -> list[str] | None:
    """Return the names in a list of them, one a line, or None where there is no such file; InputError if unreadable."""
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as a list of names ({problem})") from problem


def missing_cases(pairs: dict[str, NiftiCase], splits: dict[str, list[str]]) -> list[str]:
    """Return one line for every name of ``splits`` that has no pair, and for every name that is in two splits."""
    lines, seen = [], {}
    for split, names in splits.items():
        for name in names:
            if name not in pairs:
                lines.append(f"{split}: no image and label of {name}")
            if name in seen:
                lines.append(f"{name} is in {seen[name]} and in {split}")
            seen[name] = split
    return lines


class VolumeDataset(Protocol):
    """What training, evaluation and plots ask of a data set of volumes; no base class is needed.

    Item i is (image float32 (C, D, H, W), normalised; label uint8 (D, H, W)); label values are 0..len(classes) - 1, and
    class 0 is the background. (255 comes in by `VolumeTransform` only, where a patch reaches beyond the volume.)
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int  # 255, always
    sided: bool  # whether a class says left or right, or the volume does by where its organs lie

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the case's name, for messages and outputs."""

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Labels:
    """What a set's label values mean: class names, the background first; the class number of every value in the files;
    whether the classes have sides."""

    classes: tuple[str, ...]
    numbers: dict[int, int]
    sided: bool


class FileVolumes:
    """A `VolumeDataset` over files, which are opened when an item is asked for; the InputError of a bad one names it.

    Args:
        pairs: the cases.
        labels: what their values mean.
        normalise: maps the image's values (D, H, W) to float32.
        spacing: (depth, height, width) in mm to resample every item to; None keeps each file's own.
    """

    ignore_index = VOID

    def __init__(
        self,
        pairs: Sequence[NiftiCase],
        labels: Labels,
        normalise: Callable[[np.ndarray], np.ndarray],
        spacing: Spacing | None = None,
    ) -> None:
        self.pairs = pairs
        self.labels = labels
        self.classes = labels.classes
        self.palette = tuple(voc_colour(number) for number in range(len(labels.classes)))
        self.sided = labels.sided
        self._normalise = normalise
        self._spacing = None if spacing is None else check_spacing(spacing)
        self._own_spacings: dict[int, Spacing] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return the name of case ``index``."""
        return self.pairs[index].name

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""
        if self._spacing is not None:
            return self._spacing
        if index not in self._own_spacings:
            self._own_spacings[index] = self.pairs[index].spacing()
        return self._own_spacings[index]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        image, numbers, own = read_pair(pair, self.labels)
        self._own_spacings[index] = own
        try:
            image = self._normalise(image)
        except InputError as problem:
            raise InputError(f"{pair.image}: {problem}") from None
        if self._spacing is not None:
            image, numbers = resample_image(image, own, self._spacing), resample_label(numbers, own, self._spacing)
        return torch.from_numpy(image)[None], torch.from_numpy(numbers)


def read_pair(pair: NiftiCase, labels: Labels) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Return a pair's image values and class numbers, both (D, H, W), and the spacing in mm.

    Raises InputError if a file is bad, if the two lie on different voxels, or for a label value that is not known.
    """
    image, values, spacing = pair.read()
    return image, class_numbers(pair.label, values, labels.numbers), spacing

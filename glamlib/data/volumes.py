"""Volumes: NIfTI files as arrays in one orientation, cases and splits, and the data set over them.

Axes are (depth, height, width) = (inferior to superior, posterior to anterior, left to right); spacings are in mm in
that order.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from glamlib.data.images import NAMED, voc_colour
from glamlib.data.transforms import VOID
from glamlib.errors import InputError, one_of

Spacing = tuple[float, float, float]
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
        shape, affine = image.shape, image.affine
        if len(shape) != 3 or 0 in shape:
            raise InputError(f"{path}: {len(shape)} axes ({_by(shape)}); allowed: volumes of three axes")
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise InputError(f"{path}: its affine maps no voxel to a place; allowed: an invertible one")
        canonical = nib.as_closest_canonical(image)
        values = np.asanyarray(canonical.dataobj)
        unit = image.header.get_xyzt_units()[0]
    except InputError:
        raise
    # What nibabel, gzip and numpy raise for damaged files depends on where the damage lies.
    except (
        *(OSError, EOFError, zlib.error, ValueError, TypeError, ArithmeticError, MemoryError, KeyError, AttributeError),
        *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.orientations.OrientationError),
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # nibabel's may have several lines
        raise InputError(f"{path}: cannot be read as NIfTI ({reason})") from error
    if values.dtype.kind not in "iuf":
        raise InputError(f"{path}: values of type {values.dtype}; allowed: whole or real numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite")
    in_mm = np.diag([_IN_MM.get(unit, 1.0)] * 3 + [1.0]) @ canonical.affine
    width, height, depth = nib.affines.voxel_sizes(in_mm).tolist()
    return Volume(np.ascontiguousarray(values.T), (depth, height, width), in_mm)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


@dataclass(frozen=True)
class Labels:
    """What a set's label values mean: class names, the background first; the class number of every value in the files;
    whether the classes have sides."""

    classes: tuple[str, ...]
    numbers: Mapping[int, int]
    sided: bool

    def decode(self, path: Path, values: np.ndarray) -> np.ndarray:
        """Return class numbers, uint8 (D, H, W), of a file's ``values``; InputError for one that is not known.

        Real numbers within 0.001 of an integer are that integer: tools that resample labels write 0.99999994.
        """
        found = np.unique(values)
        near = np.round(found)
        unknown = [
            value for value, n in zip(found, near, strict=True) if abs(value - n) > 1e-3 or n not in self.numbers
        ]
        if unknown:
            more = ", ..." if len(unknown) > 5 else ""
            listed = ", ".join(f"{value:.9g}" for value in unknown[:5])
            raise InputError(f"{path}: unknown label value(s) {listed}{more}; allowed: {_ranges(self.numbers)}")
        lowest = int(near[0])
        table = np.array([self.numbers.get(value, 0) for value in range(lowest, int(near[-1]) + 1)], np.uint8)
        return table[np.round(values).astype(np.int64) - lowest]


def _ranges(numbers: Mapping[int, int]) -> str:
    """Return the keys as text, runs of them as "first..last"."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


class Case(NamedTuple):
    """An image and its label in two NIfTI files."""

    name: str
    image: Path
    label: Path

    def read(self, labels: Labels) -> tuple[np.ndarray, np.ndarray, Spacing]:
        """Return image values and class numbers, both (D, H, W), and the spacing in mm.

        The two may be stored in different orientations; InputError if their corners lie more than a tenth of a voxel
        apart, if a file is bad, or for a label value that is not known.
        """
        image, label = read_volume(self.image), read_volume(self.label)
        if image.values.shape != label.values.shape:
            have = " and ".join(_by(volume.values.shape) for volume in (image, label))
            raise InputError(
                f"{self.image} and {self.label.name} differ in shape: {have} voxels (depth x height x width)"
            )
        corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.array(image.values.shape[::-1])[:, None] - 1)
        apart = (image.affine - label.affine)[:3] @ np.vstack([corners, np.ones(8)])
        distance = np.linalg.norm(apart, axis=0).max()
        if distance > 0.1 * min(image.spacing):
            raise InputError(
                f"{self.image} and {self.label.name} differ in affine: voxels lie up to {distance:.3g} mm apart"
            )
        return image.values, labels.decode(self.label, label.values), image.spacing


@dataclass
class Layout:
    """What lies in a data set's folder.

    Attributes:
        folder: where the images lie.
        cases: by name, sorted.
        splits: names of the cases of each split; not all of them need be there.
        problems: one line for each file without a partner, and for each name of a split without files.
    """

    folder: Path
    cases: dict[str, Case]
    splits: dict[str, list[str]]
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for split, names in self.splits.items():
            for name in names:
                if name not in self.cases:
                    self.problems.append(f"{split}: no image and label of {name}")
                if name in seen:
                    self.problems.append(f"{name} is in {seen[name]} and in {split}")
                seen[name] = split

    def select(self, split: str) -> list[Case]:
        """Return the cases of a split; InputError for an unknown split, or if anything is missing."""
        if split not in self.splits:
            raise one_of("split", split, self.splits)
        if self.problems:
            more = "; ..." if len(self.problems) > NAMED else ""
            listed = "; ".join(self.problems[:NAMED])
            raise InputError(f"{self.folder}: {len(self.problems)} problem(s): {listed}{more}")
        return [self.cases[name] for name in self.splits[split]]


def match_volumes(images: Path, image_name: str, labels: Path, label_name: str) -> tuple[dict[str, Case], list[str]]:
    """Pair the .nii and .nii.gz files of two folders by the first group of a pattern of their names without suffix.

    Returns the cases by name and one line for every file that has no partner or whose case has two. Other files and
    hidden ones do not count. Raises InputError if a folder is missing or neither holds such a file.
    """
    problems: list[str] = []
    found = []
    for folder, name in ((images, image_name), (labels, label_name)):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        files: dict[str, Path] = {}
        for file in sorted(folder.iterdir()):
            match = re.fullmatch(rf"{name}\.nii(\.gz)?", file.name)
            if match and not file.name.startswith("."):
                if match[1] in files:
                    problems.append(f"{file.name} is the same case as {files[match[1]].name}")
                files.setdefault(match[1], file)
        found.append(files)
    image_files, label_files = found
    if not image_files and not label_files:
        raise InputError(f"{images}: no .nii or .nii.gz files of the expected names")
    cases = {case: Case(case, file, label_files[case]) for case, file in image_files.items() if case in label_files}
    problems += [f"image {file.name} has no label" for case, file in image_files.items() if case not in cases]
    problems += [f"label {file.name} has no image" for case, file in label_files.items() if case not in cases]
    return cases, problems


def read_names(path: Path) -> list[str] | None:
    """Return the names in a list of them, one a line, or None where there is no such file; InputError if unreadable."""
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as a list of names ({problem})") from problem


def check_spacing(spacing: object) -> Spacing:
    """Return ``spacing`` as three floats in mm (depth, height, width); InputError unless three numbers above 0."""
    numbers = isinstance(spacing, tuple | list) and len(spacing) == 3
    if not numbers or not all(type(side) in (int, float) and 0 < side < np.inf for side in spacing):
        raise InputError(f"spacing {spacing!r} cannot be used; allowed: (depth, height, width), three mm above 0")
    depth, height, width = map(float, spacing)
    return depth, height, width


def z_score(values: np.ndarray) -> np.ndarray:
    """Return float32 with the mean and deviation of the voxels that are not 0 taken out of all voxels.

    MR intensities have no unit and differ from scan to scan; 0 is what lies outside a stripped or cropped volume.
    Raises InputError where those voxels all have one value.
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
    values = values.astype(np.float32)
    if np.allclose(old, new, rtol=1e-3):
        return values
    factor = np.array(new) / np.array(old)
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
    best, most = np.zeros((), label.dtype), np.float32(-1)
    for number in np.unique(label):  # one mask at a time: all at once would not fit
        share = resample_image(label == number, old, new)
        best, most = np.where(share > most, number, best), np.maximum(share, most)
    return best


class VolumeDataset(Protocol):
    """What training, evaluation and figures ask of a data set of volumes; no base class is needed.

    Item i is (image float32 (C, D, H, W), normalised; label uint8 (D, H, W)); label values are 0..len(classes) - 1, and
    class 0 is the background.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int  # 255, always
    sided: bool  # whether a class says left or right, or the volume does by where its organs lie: then no mirror of W

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the case's name, for messages and outputs."""

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


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
        spacing: Spacing | None = None,
    ) -> None:
        self.cases = cases
        self.labels = labels
        self.classes = labels.classes
        self.palette = tuple(voc_colour(number) for number in range(len(labels.classes)))
        self.sided = labels.sided
        self._normalise = normalise
        self._spacing = None if spacing is None else check_spacing(spacing)

    def __len__(self) -> int:
        return len(self.cases)

    def name(self, index: int) -> str:
        """Return the name of case ``index``."""
        return self.cases[index].name

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""
        return self._spacing or read_volume(self.cases[index].image).spacing

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        case = self.cases[index]
        image, numbers, own = case.read(self.labels)
        try:
            image = self._normalise(image)
        except InputError as problem:
            raise InputError(f"{case.image}: {problem}") from None
        if self._spacing is not None:
            image, numbers = resample_image(image, own, self._spacing), resample_label(numbers, own, self._spacing)
        return torch.from_numpy(image)[None], torch.from_numpy(numbers)

"""Volumes: NIfTI files as arrays in one orientation, their preprocessing and its inverse, and the data set over them.

Axes are (depth, height, width) = (inferior to superior, posterior to anterior, left to right); spacings are in mm.
"""

import gzip
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from glamlib.data.layout import Catcher, FileItems, Item, Labels, Layout, by, reading
from glamlib.errors import Checked, InputError, Range

Length = Annotated[float, Range(1e-4, 1000)]
Shape = tuple[int, int, int]
Spacing = tuple[Length, Length, Length]  # of voxels, in mm
Scale = tuple[float, float, float, Annotated[float, Range(1e-8)]]  # low, high, mean, deviation: see `normalised`
LEFT_RIGHT = 2  # the axis of (D, H, W) along which a sided volume must not be mirrored
_IN_MM = {"meter": 1000.0, "micron": 0.001}  # units that NIfTI knows beside mm; "unknown" is taken for mm


class Volume(NamedTuple):
    """A file's values (D, H, W) in canonical axes, the sides of a voxel in mm, and the affine.

    The affine (4, 4) takes the voxel (x, y, z) = (w, h, d) to mm, in "RAS+". Of several channels, values (C, D, H, W).
    """

    values: np.ndarray
    spacing: Spacing
    affine: np.ndarray

    def check_same_voxels(self, other: "Volume", differ: str) -> None:
        """Raise InputError, which begins with ``differ``, if corners lie more than a tenth of a voxel apart."""
        shape, theirs = self.values.shape[-3:], other.values.shape[-3:]
        if shape != theirs:
            raise InputError(f"{differ} shape: {by(shape)} and {by(theirs)} voxels (depth x height x width)")
        corners = np.indices((2, 2, 2)).reshape(3, 8).T * (np.array(shape[::-1]) - 1)  # (x, y, z) of voxels
        apart = np.linalg.norm(nib.affines.apply_affine(self.affine - other.affine, corners), axis=1).max()
        if apart > 0.1 * min(self.spacing):
            raise InputError(f"{differ} affine: voxels lie up to {apart:.3g} mm apart")


def _open(path: Path) -> tuple[nib.spatialimages.SpatialImage, np.ndarray]:
    """Return a file's image, whose values are not read yet, and what takes its units to mm."""
    image = nib.funcs.squeeze_image(nib.load(path))
    in_mm = np.diag([_IN_MM.get(image.header.get_xyzt_units()[0], 1.0)] * 3 + [1.0])
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(in_mm @ image.affine)) < 1e-12:
        raise InputError(f"{path}: its affine maps no voxel to a place; allowed: an invertible one")
    return image, in_mm


def read_grid(path: Path) -> tuple[Shape, Spacing]:
    """Return the shape (D, H, W) and the spacing of `read_volume` from the header alone."""
    with reading(path, "NIfTI"):
        image, in_mm = _open(path)
        order = np.argsort(nib.io_orientation(image.affine)[:, 0])[::-1]  # the file's axes of depth, height, width
        sides = nib.affines.voxel_sizes(in_mm @ image.affine)
        return tuple(np.array(image.shape)[order].tolist()), tuple(sides[order].tolist())


def read_volume(path: Path, channels: int = 1) -> Volume:
    """Read a NIfTI file of any orientation, numeric type and unit. Axes of length 1 behind the third are dropped.

    With several ``channels``, which are the file's fourth axis, the values are (C, D, H, W). InputError names a file
    that is missing or damaged, or has other axes, no voxels, no usable affine or values that are not finite numbers.
    """
    with reading(path, "NIfTI"):
        if path.suffix == ".gz":
            gzip.decompress(path.read_bytes())  # looks at the checksum at the end: nibabel does not
        image, in_mm = _open(path)
        if image.ndim < 3 or image.shape[3:] != (channels,) * (channels > 1) or 0 in image.shape:
            allowed = "volumes of three axes" + f" and a fourth of {channels} channels" * (channels > 1)
            raise InputError(f"{path}: {image.ndim} axes ({by(image.shape)}); allowed: {allowed}")
        image = nib.as_closest_canonical(image)
        values = np.asanyarray(image.dataobj)
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise InputError(f"{path}: its values are {values.dtype} or not finite; allowed: finite real numbers")
    affine = in_mm @ image.affine
    return Volume(np.ascontiguousarray(values.T), tuple(nib.affines.voxel_sizes(affine)[::-1].tolist()), affine)


def read_channels(paths: Sequence[Path], channels: int) -> Volume:
    """Read an image (C, D, H, W) from one file, or one a channel; errors as above, and for a channel of one value."""
    first, *others = (read_volume(path, channels if len(paths) == 1 else 1) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        first.check_same_voxels(other, f"{paths[0]} and {path.name} differ in")
    # (C, D, H, W)
    values = np.stack([first.values, *(other.values for other in others)]).reshape(-1, *first.values.shape[-3:])
    for number, channel in enumerate(values):
        if channel.min() == channel.max():
            raise InputError(f"{paths[number % len(paths)]}: all voxels of channel {number} have one value")
    return first._replace(values=values)


def label_file(label: np.ndarray, like: Path) -> bytes:
    """Return a .nii.gz file of ``label`` (D, H, W), integers, with the axes, affine and units of the image ``like``."""
    image = nib.funcs.squeeze_image(nib.load(like))
    canonical = nib.orientations.axcodes2ornt("RAS")
    back = nib.orientations.ornt_transform(canonical, nib.io_orientation(image.affine))
    # of the same affine, so that the header's two forms of it and their codes stay as they are
    made = nib.Nifti1Image(nib.apply_orientation(label.T, back), image.affine, image.header)
    made.set_data_dtype(label.dtype)
    made.header["cal_min"] = made.header["cal_max"] = 0  # the range of grey values to show
    return gzip.compress(made.to_bytes(), mtime=0)


def read_case(
    labels: Labels, channels: int, item: Item, each: Catcher = nullcontext
) -> tuple[np.ndarray | None, np.ndarray | None, Spacing | None]:
    """Return image values (C, D, H, W), class numbers uint8 (D, H, W) and the spacing in mm: see `Layout.read`.

    The files may be stored in different orientations, but must have the same voxels.
    """
    image = label = classes = None
    with each():
        image = read_channels(item.images, channels)
    with each():
        label = read_volume(item.label)
        classes = labels.decode(item.label, label.values)
    with each():
        if image and label:
            image.check_same_voxels(label, f"{item.images[0]} and {item.label.name} differ in")
    return image and image.values, classes, image and image.spacing


def normalised(values: np.ndarray, scale: Scale | None = None) -> np.ndarray:
    """Return float32: ``values`` clipped to low..high (CT: Hounsfield units), less the mean, over the deviation.

    Without a scale (MR, whose values have no unit) mean and deviation are those of the voxels that are not 0 (outside).
    """
    if scale is None:
        inside = values[values != 0].astype(np.float64)
        return ((values - inside.mean()) / (inside.std() or 1.0)).astype(np.float32)
    low, high, mean, deviation = scale
    return (np.clip(values, low, high).astype(np.float32) - mean) / deviation


def resample_image(values: np.ndarray, old: Spacing, new: Spacing, shape: Shape | None = None) -> np.ndarray:
    """Return ``values`` (D, H, W) as float32 in voxels of ``new`` mm, by linear interpolation.

    The volume keeps its centre, and its extent but for the rounding to whole voxels, or has a given ``shape``. Along
    axes whose voxels grow f times it is smoothed first against aliasing (Gaussian, deviation (f - 1) / 2 old voxels).
    """
    factor = np.divide(new, old)
    values = ndimage.gaussian_filter(values.astype(np.float32), np.maximum(factor - 1, 0) / 2, mode="nearest")
    have = np.array(values.shape)
    want = np.array(shape or np.maximum(np.round(have / factor), 1).astype(int))
    offset = (have - 1) / 2 - factor * (want - 1) / 2
    return ndimage.affine_transform(values, factor, offset, tuple(want), order=1, mode="nearest")


def resample_label(label: np.ndarray, old: Spacing, new: Spacing, shape: Shape | None = None) -> np.ndarray:
    """Return class numbers ``label`` (D, H, W) in voxels of ``new`` mm: each takes the class with the largest share.

    The shares are the classes' masks, resampled as `resample_image` does; nearest neighbour would leave jagged borders.
    """
    best, most = np.zeros((), label.dtype), np.float32(-1)
    for number in np.unique(label):  # one mask at a time: all at once would not fit
        share = resample_image(label == number, old, new, shape)
        best, most = np.where(share > most, number, best), np.maximum(share, most)
    return best


@dataclass(frozen=True)
class Preprocessing(Checked):
    """How images become a network's input, and its predictions label maps."""

    role: ClassVar[str] = "preprocessing"

    values: tuple[int, ...]  # the label value of each class
    scales: tuple[Scale | None, ...]  # of each channel, as `normalised` takes it: None for MR
    spacing: Spacing | None = None  # that every image is resampled to; None keeps each file's own

    def resamples(self, own: Spacing) -> bool:
        """Tell whether an image of voxels of ``own`` mm is resampled."""
        return self.spacing is not None and not np.allclose(self.spacing, own, rtol=1e-3)

    def prepare(self, values: np.ndarray, own: Spacing) -> np.ndarray:
        """Return ``values`` (C, D, H, W) normalised, float32, and resampled from voxels of ``own`` mm."""
        channels = list(map(normalised, values, self.scales))
        if self.resamples(own):
            channels = [resample_image(channel, own, self.spacing) for channel in channels]
        return np.stack(channels)

    def restore(self, classes: np.ndarray, own: Spacing, shape: Shape) -> np.ndarray:
        """Return class numbers of a prepared image in the image's own voxels, ``shape`` of ``own`` mm."""
        return resample_label(classes, self.spacing, own, shape) if self.resamples(own) else classes


class FileVolumes(FileItems):
    """A `VolumeDataset` over files, resampled by ``preprocessing``; not the labels, if ``original_labels`` is set."""

    def __init__(self, layout: Layout, split: str, preprocessing: Preprocessing) -> None:
        super().__init__(layout, split)
        self.sided, self.channels, self.preprocessing = layout.labels.sided, layout.channels, preprocessing
        self.original_labels = False

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of the voxels of item ``index``'s label in mm."""
        resampled = None if self.original_labels else self.preprocessing.spacing
        return resampled or read_grid(self.items[index].images[0])[1]

    def median_shape(self) -> Shape:
        """Return the median (depth, height, width) of the images in voxels, as resampled, from the files' headers."""
        grids = [read_grid(item.images[0]) for item in self.items]
        sides = [np.multiply(shape, np.divide(own, self.preprocessing.spacing or own)) for shape, own in grids]
        return tuple(max(1, round(side)) for side in np.median(sides, axis=0).tolist())

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label, own = self.read(self.items[index])
        image = self.preprocessing.prepare(image, own)
        if self.preprocessing.resamples(own) and not self.original_labels:
            label = resample_label(label, own, self.preprocessing.spacing)
        return torch.from_numpy(image), torch.from_numpy(label)

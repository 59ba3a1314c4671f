"""A pack: a set of volumes in one zip file, small, and read with numpy alone. `glamlib.data.volumes.pack` makes it.

It serves machines that have no nibabel, and holds what `NiftiCase` reads, voxel by voxel: the whole grid, the image's
values and the label values of the source, so one pack serves every choice of classes. In the zip file, all as LZMA:

    pack.json         format, version, dataset, splits (names by split), cases (shape, spacing in mm, image's type)
    images/NAME.npy   (D, H, W), unsigned: the values as the smallest integers that hold them (floats where they are
                      not whole), minus what their neighbours along the last two axes tell; see `differences`
    labels/NAME.npy   (D, H, W), uint8: label values
"""

import json
import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glamlib.data.volumes.layout import Layout, missing_cases
from glamlib.data.volumes.nifti import Spacing
from glamlib.data.volumes.preprocess import check_spacing
from glamlib.errors import InputError

FORMAT = "glam volumes"
VERSION = 1
TABLE = "pack.json"
_DAMAGE = (  # what zipfile, its decompressors, numpy and json raise for damaged files
    *(OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, NotImplementedError),
    *(RuntimeError, ValueError, TypeError, KeyError, AttributeError, MemoryError),
)


@dataclass(frozen=True)
class PackedCase:
    """A case of a pack.

    Attributes:
        name: the case's name.
        pack: the zip file.
        shape: (D, H, W) in voxels.
        sides: (depth, height, width) of a voxel in mm.
        stored: numpy type of the image as it is stored, before `differences`.
        dtype: numpy type of the image's values in the source.
    """

    name: str
    pack: Path
    shape: tuple[int, int, int]
    sides: Spacing
    stored: np.dtype
    dtype: np.dtype

    @property
    def image(self) -> Path:
        """Where the image is, for messages."""
        return self.pack / "images" / f"{self.name}.npy"

    @property
    def label(self) -> Path:
        """Where the label is, for messages."""
        return self.pack / "labels" / f"{self.name}.npy"

    def spacing(self) -> Spacing:
        """Return the sides (depth, height, width) of a voxel in mm."""
        return self.sides

    def read(self) -> tuple[np.ndarray, np.ndarray, Spacing]:
        """Return image values and label values, both (D, H, W), and the spacing; InputError if they are damaged."""
        image = sums(self._array("images", unsigned(self.stored))).view(self.stored)
        return image.astype(self.dtype), self._array("labels", np.dtype(np.uint8)), self.sides

    def _array(self, folder: str, dtype: np.dtype) -> np.ndarray:
        member = f"{folder}/{self.name}.npy"
        try:
            with zipfile.ZipFile(self.pack) as archive, archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                file.read()  # to the end, where the checksum is
        except _DAMAGE as problem:
            raise _damaged(self.pack / member, problem) from problem
        if array.shape != self.shape or array.dtype != dtype:
            have = f"{array.dtype} of shape {array.shape}"
            raise InputError(f"{self.pack / member}: {have}; {TABLE} says {dtype} of shape {self.shape}")
        return array


def is_pack(root: Path) -> bool:
    """Tell whether a data set's root is a pack, by its name, and no folder."""
    return root.suffix == ".zip" and not root.is_dir()


def read_pack(path: Path, dataset: str) -> Layout:
    """Return the cases and splits of the pack of ``dataset`` at ``path``; no case is opened.

    Raises InputError, naming the file, if it is no pack, damaged, of an unknown version or of another data set.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            table = json.loads(archive.read(TABLE)) if TABLE in members else None
    except _DAMAGE as problem:
        raise _damaged(path, problem) from problem
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise InputError(f"{path}: no pack of volumes; python -m glamlib.data.volumes.pack makes one")
    if table.get("version") != VERSION:
        raise InputError(
            f"{path}: a pack of version {table.get('version')!r}; allowed: {VERSION}; pack the source again"
        )
    if table.get("dataset") != dataset:
        raise InputError(f"{path}: a pack of {table.get('dataset')!r}; wanted: {dataset}")
    try:
        cases = {name: _case(path, name, entry) for name, entry in table["cases"].items()}
        splits = {split: [str(name) for name in names] for split, names in table["splits"].items()}
    except _DAMAGE as problem:
        raise InputError(f"{path}: {TABLE} cannot be used ({type(problem).__name__}: {problem})") from problem
    wanted = [f"{folder}/{name}.npy" for name in cases for folder in ("images", "labels")]
    problems = [f"{member} is in {TABLE} and not here" for member in wanted if member not in members]
    return Layout(path, cases, splits, problems + missing_cases(cases, splits))


def _case(path: Path, name: str, entry: dict) -> PackedCase:
    depth, height, width = map(int, entry["shape"])
    stored, dtype = np.dtype(entry["stored"]), np.dtype(entry["dtype"])
    unsigned(stored), unsigned(dtype)  # refuse what is no number
    return PackedCase(name, path, (depth, height, width), check_spacing(entry["spacing"]), stored, dtype)


def _damaged(path: Path, problem: Exception) -> InputError:
    reason = " ".join(str(problem).split()) or type(problem).__name__
    return InputError(f"{path}: cannot be read as a pack of volumes ({reason})")


def unsigned(dtype: np.dtype) -> np.dtype:
    """Return the unsigned type as wide as the numeric ``dtype``; TypeError where there is none."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise TypeError(f"type {dtype}; allowed: whole or real numbers of at most 64 bits")
    return np.dtype(f"u{dtype.itemsize}")


def differences(values: np.ndarray) -> np.ndarray:
    """Return unsigned ``values`` (D, H, W) minus the prediction a + b - c, modulo the type's range.

    a is the voxel before along the last axis, b that along the one before it, c the one before both (0 beyond the
    edge). An image's differences are mostly small, and pack better than its values.
    """
    for axis in (-1, -2):
        values = np.diff(values, axis=axis, prepend=values.dtype.type(0))
    return values


def sums(values: np.ndarray) -> np.ndarray:
    """Return what `differences` was given."""
    for axis in (-2, -1):
        values = np.cumsum(values, axis=axis, dtype=values.dtype)
    return values

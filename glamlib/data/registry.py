"""The datasets by name, and what every one of them offers."""

import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from glamlib.data.ade20k import ADE20K
from glamlib.data.camvid import CamVid
from glamlib.data.cityscapes import Cityscapes
from glamlib.data.drawing import all_items
from glamlib.data.folder import FolderDataset
from glamlib.errors import InputError, one_of

Size = tuple[int, int] | None


class SegmentationDataset(Protocol):
    """What training, evaluation and plots ask of a dataset; no base class is needed.

    Item i is (image uint8 (3, H, W) RGB, label uint8 (H, W)); label values are 0..len(classes) - 1, or 255 for void.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int  # 255, always: a file's own void value is mapped to it at reading

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the file stem of item ``index``, for messages and outputs."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class Entry(NamedTuple):
    """A line of the table: how a dataset is made of (root, split, size), and whether it lies on disk at all."""

    make: Callable[[Path | None, str | None, Size], SegmentationDataset]
    on_disk: bool = True


DATASETS = {
    "camvid": Entry(CamVid),
    "folder": Entry(FolderDataset),
    "ade20k": Entry(ADE20K),
    "cityscapes": Entry(Cityscapes),
}


def load_dataset(
    name: str, split: str | None, *, size: Size = None, root: str | PathLike[str] | None = None
) -> SegmentationDataset:
    """Return the dataset ``name``, its items resized to ``size`` = (height, width) if that is given.

    Data on disk lies in ``root``, by default in the sub-folder ``name`` of the folder that GLAM_DATA names. Raises
    InputError for an unknown name or split, and for data that are missing or malformed.
    """
    entry = _entry(name)
    if entry.on_disk and root is None:
        root = data_root(name)
        if root is None or not root.is_dir():
            raise InputError(_how_to_get(name, root))
    return entry.make(None if root is None else Path(root), split, size)


def has_dataset(name: str) -> bool:
    """Tell whether `load_dataset` finds ``name`` without being told a root; InputError for an unknown name."""
    entry, root = _entry(name), data_root(name)
    return not entry.on_disk or (root is not None and root.is_dir())


def _entry(name: str) -> Entry:
    if name not in DATASETS:
        raise one_of("dataset", name, DATASETS)
    return DATASETS[name]


def data_root(name: str) -> Path | None:
    """Return the folder of data set ``name`` in the folder that GLAM_DATA names; None where that is not set."""
    base = os.environ.get("GLAM_DATA")
    return Path(base) / name if base else None


def _how_to_get(name: str, root: Path | None) -> str:
    missing = "GLAM_DATA is not set" if root is None else f"{root}: no such folder"
    fetch = ", or run `make camvid`" if name == "camvid" else ""
    return f"dataset {name!r}: {missing}; set GLAM_DATA to the folder that holds {name}/{fetch}"


class InMemory:
    """A dataset decoded once and held as uint8 tensors, 4 bytes a pixel; otherwise the same as the one it is made from.

    With ``limit``, only its first so many items; ``workers`` processes decode them. The tensors it hands out are those
    it holds: do not write into them.
    """

    def __init__(self, dataset: SegmentationDataset, limit: int | None = None, workers: int = 0) -> None:
        count = len(dataset) if limit is None else min(limit, len(dataset))
        self.classes = dataset.classes
        self.palette = dataset.palette
        self.ignore_index = dataset.ignore_index
        self._names = [dataset.name(index) for index in range(count)]
        self._items = all_items(dataset, count, workers)

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        """Return the file stem of item ``index``."""
        return self._names[index]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._items[index]

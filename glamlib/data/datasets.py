"""Drawing or decoding all items of a data set, by several processes where there are some.

MERGED: The datasets by name, and what every one of them offers.

MERGED: The data sets of volumes by name.
"""

import inspect
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from glamlib.data import brains, hippocampus, synapse
from glamlib.data.ade20k import ADE20K
from glamlib.data.camvid import CamVid
from glamlib.data.cityscapes import Cityscapes
from glamlib.data.images import FolderDataset
from glamlib.data.volumes import Spacing, VolumeDataset
from glamlib.errors import InputError, one_of

_CHUNK = 32  # items a task

_dataset: "Items | None" = None  # of a worker process


class Items(Protocol):
    """What items are taken from."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


def all_items(dataset: Items, count: int, workers: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the first ``count`` items, in order; the same with any number of ``workers``.

    They are arrays: a tensor that goes to another process holds a file open.
    """
    if not workers or count < 2 * _CHUNK:
        return [(image.numpy(), label.numpy()) for image, label in (dataset[index] for index in range(count))]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _hold, (dataset,)) as pool:
        return list(pool.map(_arrays, range(count), chunksize=_CHUNK))


def _hold(dataset: Items) -> None:
    global _dataset  # one data set a worker, which a fork hands over without a copy
    _dataset = dataset


def _arrays(index: int) -> tuple[np.ndarray, np.ndarray]:
    image, label = _dataset[index]
    return image.numpy(), label.numpy()


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
        image, label = self._items[index]
        return torch.from_numpy(image), torch.from_numpy(label)


class InMemoryVolumes(InMemory):
    """A `VolumeDataset` read and preprocessed once and held: 5 bytes a voxel of one channel; as `InMemory` is."""

    def __init__(self, dataset: VolumeDataset, limit: int | None = None, workers: int = 0) -> None:
        super().__init__(dataset, limit, workers)
        self.sided = dataset.sided
        self._spacings = [dataset.spacing(index) for index in range(len(self))]

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""
        return self._spacings[index]


VOLUMES = {
    "hippocampus": (hippocampus.Hippocampus, hippocampus.SOURCE),
    "brains": (brains.Brains, brains.SOURCE),
    "synapse": (synapse.Synapse, synapse.SOURCE),
}


def load_volumes(name: str, split: str, *, root: str | PathLike[str] | None = None, **options: object) -> VolumeDataset:
    """Return the split of the data set ``name``; its files are read when items are asked for (see `InMemoryVolumes`).

    The data lie in ``root``, by default in the sub-folder ``name`` of the folder that GLAM_DATA names, or as a pack
    (`glamlib.data.volumes.packed`) in ``name``.zip there. Options are
    those of the data set's class: ``spacing`` of all, ``sides`` of brains, ``organs`` of synapse. Raises InputError for
    an unknown name, split or option, and for data that are missing or malformed.
    """
    if name not in VOLUMES:
        raise one_of("data set of volumes", name, VOLUMES)
    make, source = VOLUMES[name]
    allowed = [p.name for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in allowed:
            raise one_of(f"option of {name}", option, allowed)
    root = data_root(name) if root is None else Path(root)
    if root is None or not root.is_dir():
        missing = "GLAM_DATA is not set" if root is None else f"{root}: no such folder"
        raise InputError(
            f"dataset {name!r}: {missing}; set GLAM_DATA to the folder that holds {name}/, which is {source}"
        )
    return make(root, split, **options)


def has_volumes(name: str) -> bool:
    """Tell whether `load_volumes` finds ``name`` without being told a root; InputError for an unknown name."""
    if name not in VOLUMES:
        raise one_of("data set of volumes", name, VOLUMES)
    root = data_root(name)
    return root is not None and root.is_dir()

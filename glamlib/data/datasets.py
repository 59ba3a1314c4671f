"""The data sets of images and volumes by name, and the same held in memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from glamlib.data.folder import folder
from glamlib.data.images import ImageFiles
from glamlib.data.layout import Palette
from glamlib.data.published import IMAGE_SETS
from glamlib.data.volume_sets import VOLUMES
from glamlib.data.volumes import FileVolumes, Preprocessing, Spacing
from glamlib.errors import InputError, check_options, lookup

Root = str | PathLike[str]
DATASETS = {"folder": folder} | IMAGE_SETS
FINDERS = DATASETS | {name: volumes.find for name, volumes in VOLUMES.items()}  # of the `Layout` in a folder


class SegmentationDataset(Protocol):
    """A data set of images: item i is (image uint8 (3, H, W) RGB, label uint8 (H, W) of class numbers and 255)."""

    classes: tuple[str, ...]
    palette: Palette
    ignore_index: int  # 255, always: a file's own void value is mapped to it at reading

    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...  # of item ``index``, for messages and outputs
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class VolumeDataset(SegmentationDataset, Protocol):
    """A data set of volumes: item i is (image float32 (C, D, H, W), normalised; label uint8 (D, H, W))."""

    sided: bool  # whether left and right differ: then no mirror along `LEFT_RIGHT`
    preprocessing: Preprocessing | None  # None: drawn data

    def spacing(self, index: int) -> Spacing: ...  # of the voxels of item ``index``'s label


def load_dataset(name: str, split: str | None = None, *, root: Root | None = None, **options: object) -> ImageFiles:
    """Return a split of the data set of images ``name``, resized to the option ``size`` = (height, width) if given.

    The data lie in ``root``, by default in the sub-folder ``name`` of the folder that GLAM_DATA names. Raises
    InputError for an unknown name, split or option, and for data that are missing or malformed.
    """
    find = lookup("dataset", name, DATASETS)
    return ImageFiles(find(_root(name, root)), split, **check_options("option of images", options, ImageFiles))


def load_volumes(name: str, split: str, *, root: Root | None = None, **options: object) -> FileVolumes:
    """The same of volumes; options: those of `VolumeSet.open`, of brains ``sides``, of synapse ``organs``."""
    volumes = lookup("data set of volumes", name, VOLUMES)
    options = check_options("option of volumes", options, volumes.open, volumes.labels)
    return volumes.open(_root(name, root), split, **options)


def dataset_of(path: Root) -> Literal["folder", "volumes"]:
    """Return the name under which one's own data in ``path`` are loaded; InputError where there is no such folder."""
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such folder")
    return "volumes" if any(Path(path, name).exists() for name in ("dataset.json", "imagesTr")) else "folder"


def has_dataset(name: str) -> bool:
    """Tell whether a data set of images or volumes lies below GLAM_DATA; InputError for an unknown name."""
    lookup("dataset", name, FINDERS)
    base = os.environ.get("GLAM_DATA")
    return bool(base) and Path(base, name).is_dir()


def _root(name: str, given: Root | None) -> Path:
    base = os.environ.get("GLAM_DATA")
    if given is not None:
        return Path(given)
    if not has_dataset(name):
        missing = f"{Path(base, name)}: no such folder" if base else "GLAM_DATA is not set"
        hint = ", or run `make camvid`" if name == "camvid" else ""
        hint = f", which is {VOLUMES[name].source}" if name in VOLUMES else hint
        raise InputError(f"dataset {name!r}: {missing}; set GLAM_DATA to the folder that holds {name}/{hint}")
    return Path(base, name)


class InMemory:
    """A data set, or its first ``limit`` items, read once by ``workers`` processes; do not write into the items.

    They are held as arrays, because a tensor that goes to another process keeps a file open.
    """

    def __init__(self, dataset: SegmentationDataset, limit: int | None = None, workers: int = 0) -> None:
        count = len(range(len(dataset))[:limit])
        self.dataset = dataset
        loader = DataLoader(dataset, batch_size=None, sampler=range(count), num_workers=workers)
        self._items = [(image.numpy().copy(), label.numpy().copy()) for image, label in loader]
        if hasattr(dataset, "spacing"):  # volumes
            self.spacing = [dataset.spacing(index) for index in range(count)].__getitem__

    def __len__(self) -> int:
        return len(self._items)

    def __getattr__(self, name: str) -> object:  # classes, palette, the function name, ...
        if name == "dataset":
            raise AttributeError(name)  # while it is unpickled
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return tuple(map(torch.from_numpy, self._items[index]))


def survey(dataset: SegmentationDataset) -> tuple[list[str], set[tuple[int, ...]]]:
    """Read all items; return the classes that no label holds, and the labels' sizes. InputError names a bad file."""

    def look(index: int) -> tuple[np.ndarray, tuple[int, ...]]:
        label = dataset[index][1].numpy()
        return np.bincount(label.ravel(), minlength=256) > 0, label.shape

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        met, sizes = zip(*pool.map(look, range(len(dataset))), strict=True)
    return [name for name, there in zip(dataset.classes, np.any(met, axis=0), strict=False) if not there], set(sizes)

"""The data sets of images and volumes by name, and the same held in memory."""

import os
from os import PathLike
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from glamlib.data.ade20k import ADE20K
from glamlib.data.camvid import CAMVID
from glamlib.data.cityscapes import CITYSCAPES
from glamlib.data.images import FolderDataset, PairedFiles
from glamlib.data.volume_sets import VOLUMES
from glamlib.data.volumes import FileVolumes, Spacing
from glamlib.errors import InputError, one_of

PUBLISHED = {"camvid": CAMVID, "ade20k": ADE20K, "cityscapes": CITYSCAPES}
DATASETS = {"folder": FolderDataset} | {name: images.open for name, images in PUBLISHED.items()}


class SegmentationDataset(Protocol):
    """What training, evaluation and figures ask of a data set of images; no base class is needed.

    Item i is (image uint8 (3, H, W) RGB, label uint8 (H, W)); label values are 0..len(classes) - 1, or 255 for void.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int  # 255, always: a file's own void value is mapped to it at reading

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the file stem of item ``index``, for messages and outputs."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class VolumeDataset(SegmentationDataset, Protocol):
    """The same of volumes: item i is (image float32 (C, D, H, W), normalised; label uint8 (D, H, W)), background 0."""

    sided: bool  # whether left and right differ: then no mirror along `LEFT_RIGHT`

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""


def load_dataset(
    name: str,
    split: str | None,
    *,
    size: tuple[int, int] | None = None,
    root: str | PathLike[str] | None = None,
) -> PairedFiles:
    """Return the data set of images ``name``, its items resized to ``size`` = (height, width) if that is given.

    The data lie in ``root``, by default in the sub-folder ``name`` of the folder that GLAM_DATA names. Raises
    InputError for an unknown name or split, and for data that are missing or malformed.
    """
    if name not in DATASETS:
        raise one_of("dataset", name, DATASETS)
    hint = "/, or run `make camvid`" if name == "camvid" else "/"
    return DATASETS[name](_root(name, root, hint), split, size)


def load_volumes(name: str, split: str, *, root: str | PathLike[str] | None = None, **options: object) -> FileVolumes:
    """Return a split of the data set of volumes ``name``, in ``root`` or below GLAM_DATA as in `load_dataset`.

    Options: ``spacing`` of all sets, ``sides`` of brains, ``organs`` of synapse. Raises InputError for an unknown name,
    split or option, and for data that are missing or malformed.
    """
    if name not in VOLUMES:
        raise one_of("data set of volumes", name, VOLUMES)
    return VOLUMES[name].open(_root(name, root, f"/, which is {VOLUMES[name].source}"), split, **options)


def has_dataset(name: str) -> bool:
    """Tell whether a data set of images or volumes lies below GLAM_DATA; InputError for an unknown name."""
    if name not in DATASETS and name not in VOLUMES:
        raise one_of("dataset", name, [*DATASETS, *VOLUMES])
    root = data_root(name)
    return root is not None and root.is_dir()


def data_root(name: str) -> Path | None:
    """Return the folder of data set ``name`` in the folder that GLAM_DATA names; None where that is not set."""
    base = os.environ.get("GLAM_DATA")
    return Path(base) / name if base else None


def _root(name: str, given: str | PathLike[str] | None, hint: str) -> Path:
    if given is not None:
        return Path(given)
    root = data_root(name)
    if root is None or not root.is_dir():
        missing = "GLAM_DATA is not set" if root is None else f"{root}: no such folder"
        raise InputError(f"dataset {name!r}: {missing}; set GLAM_DATA to the folder that holds {name}{hint}")
    return root


class InMemory:
    """A data set read once and held: the same items as the one it is made from.

    With ``limit``, only its first so many items; ``workers`` processes read them. Do not write into the items. They are
    held as arrays, because a tensor that goes to another process keeps a file open.
    """

    def __init__(
        self, dataset: SegmentationDataset | VolumeDataset, limit: int | None = None, workers: int = 0
    ) -> None:
        count = len(dataset) if limit is None else min(limit, len(dataset))
        self.classes = dataset.classes
        self.palette = dataset.palette
        self.ignore_index = dataset.ignore_index
        self._names = [dataset.name(index) for index in range(count)]
        loader = DataLoader(dataset, batch_size=None, sampler=range(count), num_workers=workers)
        self._items = [(image.numpy().copy(), label.numpy().copy()) for image, label in loader]

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        """Return the name of item ``index``."""
        return self._names[index]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self._items[index]
        return torch.from_numpy(image), torch.from_numpy(label)


class InMemoryVolumes(InMemory):
    """A `VolumeDataset` read and preprocessed once and held."""

    def __init__(self, dataset: VolumeDataset, limit: int | None = None, workers: int = 0) -> None:
        super().__init__(dataset, limit, workers)
        self.sided = dataset.sided
        self._spacings = [dataset.spacing(index) for index in range(len(self))]

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""
        return self._spacings[index]

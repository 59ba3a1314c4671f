"""What every data set of volumes offers, and the one that reads files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from glamlib.data.folder import voc_colour
from glamlib.data.registry import InMemory
from glamlib.data.transforms import VOID
from glamlib.data.volumes.case import Case
from glamlib.data.volumes.nifti import Spacing, class_numbers
from glamlib.data.volumes.preprocess import check_spacing, resample_image, resample_label
from glamlib.errors import InputError


class VolumeDataset(Protocol):
    """What training, evaluation and plots ask of a data set of volumes; no base class is needed.

    Item i is (image float32 (C, D, H, W), normalised; label uint8 (D, H, W)); label values are 0..len(classes) - 1, and
    class 0 is the background. (255 comes in by `VolumeTransform` only, where a patch reaches beyond the volume.)
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int  # 255, always
    sided: bool  # whether a class says left or right, or the volume does by where its organs lie
    left_right_axis: int  # the axis of (D, H, W) that a mirror must leave alone if sided: always 2

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
    left_right_axis = 2

    def __init__(
        self,
        pairs: Sequence[Case],
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


def read_pair(pair: Case, labels: Labels) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Return a pair's image values and class numbers, both (D, H, W), and the spacing in mm.

    Raises InputError if a file is bad, if the two lie on different voxels, or for a label value that is not known.
    """
    image, values, spacing = pair.read()
    return image, class_numbers(pair.label, values, labels.numbers), spacing


class InMemoryVolumes(InMemory):
    """A `VolumeDataset` read and preprocessed once and held: 5 bytes a voxel of one channel; as `InMemory` is."""

    def __init__(self, dataset: VolumeDataset, limit: int | None = None, workers: int = 0) -> None:
        super().__init__(dataset, limit, workers)
        self.sided = dataset.sided
        self.left_right_axis = dataset.left_right_axis
        self._spacings = [dataset.spacing(index) for index in range(len(self))]

    def spacing(self, index: int) -> Spacing:
        """Return the sides (depth, height, width) of item ``index``'s voxels in mm."""
        return self._spacings[index]

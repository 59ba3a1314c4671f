"""What differs between images and volumes in a run: augmentation, input, loss, evaluation. The rest is one code."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from glamlib.data.datasets import SegmentationDataset
from glamlib.data.transforms import TrainTransform, normalise
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import InputError
from glamlib.evaluation.cues import CueAccuracy
from glamlib.evaluation.metrics import ConfusionMatrix
from glamlib.evaluation.processes import part_of_batch
from glamlib.studies.parameters import InferenceOptions, RunParameters
from glamlib.training.datasets import VOLUME_DATA
from glamlib.training.losses import cross_entropy, deeply_supervised

AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss, as in the published recipe
Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


class Task(Protocol):
    """One kind of data.

    Attributes:
        divisible: the loss is a mean over valid pixels, so a batch's is the weighted mean of its parts'.
    """

    divisible: bool

    def transform(self, dataset: SegmentationDataset | VolumeDataset, run: RunParameters) -> Transform | None:
        """Return what augments a training item, None where nothing does."""

    def prepare(self, items: Tensor) -> Tensor:
        """Return a batch of items as the network wants it."""

    def loss(self, outputs: tuple, labels: Tensor, ignore_index: int) -> Tensor:
        """Return the loss of ``model(x, auxiliary=True)``."""

    def input_size(self, dataset: SegmentationDataset | VolumeDataset, run: RunParameters) -> dict[str, int]:
        """Return height and width, of volumes also depth, that costs are told for: a test image's, or a patch's."""

    def evaluate(
        self, model: nn.Module, dataset: SegmentationDataset | VolumeDataset, run: RunParameters
    ) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        """Return the metrics on test data, for the record, and pictures to keep beside it (of the first seed)."""


class ImageTask:
    """Images: cross-entropy, inference whole or by sliding window."""

    divisible = True

    def transform(self, dataset: SegmentationDataset, run: RunParameters) -> TrainTransform | None:
        return TrainTransform(**run.augment) if run.augment else None

    def prepare(self, items: Tensor) -> Tensor:
        return normalise(items)

    def loss(self, outputs: tuple[Tensor, Tensor | None], labels: Tensor, ignore_index: int) -> Tensor:
        logits, auxiliary = outputs
        loss = cross_entropy(logits, labels, ignore_index)
        if auxiliary is not None:
            loss = loss + AUXILIARY_WEIGHT * cross_entropy(auxiliary, labels, ignore_index)
        return loss

    def input_size(self, dataset: SegmentationDataset, run: RunParameters) -> dict[str, int]:
        height, width = dataset[0][1].shape
        return {"height": height, "width": width}

    def evaluate(
        self, model: nn.Module, dataset: SegmentationDataset, run: RunParameters
    ) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        from glamlib.evaluation.evaluate import evaluate
        from glamlib.evaluation.gallery import Gallery

        gallery = Gallery(dataset)
        cues = CueAccuracy(dataset) if run.dataset == "scenes" else None

        def watch(index: int, prediction: Tensor, label: Tensor) -> None:
            gallery.update(index, prediction)
            if cues:
                cues.update(index, prediction, label)

        options = InferenceOptions.from_dict(run.evaluate)
        # whole images are larger than crops: no more of them than a process trains on at once
        batch = part_of_batch(run.batch_size, run.accumulate)
        confusion = evaluate(model, dataset, batch, run.precision, on_image=watch, options=options)
        return _counted(confusion, cues), gallery.arrays(model) if run.seed == 0 else {}


class VolumeTask:
    """Volumes: Dice and cross-entropy at several resolutions, patches, sliding-window inference, Dice and HD95."""

    divisible = False  # the Dice loss is of the whole batch

    def transform(self, dataset: VolumeDataset, run: RunParameters) -> Transform | None:
        from glamlib.data.volume_transforms import VolumeTransform

        return VolumeTransform.for_dataset(dataset, **run.augment) if run.augment else None

    def prepare(self, items: Tensor) -> Tensor:
        return items

    def loss(self, outputs: tuple[Tensor, list[Tensor]], labels: Tensor, ignore_index: int) -> Tensor:
        logits, lower = outputs
        return deeply_supervised([logits, *lower], labels, ignore_index)

    def input_size(self, dataset: VolumeDataset, run: RunParameters) -> dict[str, int]:
        depth, height, width = run.augment["patch_size"] if run.augment else dataset[0][1].shape
        return {"depth": depth, "height": height, "width": width}

    def evaluate(
        self, model: nn.Module, dataset: VolumeDataset, run: RunParameters
    ) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        from glamlib.evaluation.evaluate import evaluate_volumes
        from glamlib.evaluation.gallery import VolumeGallery
        from glamlib.evaluation.metrics import VolumeScores

        gallery = VolumeGallery(dataset)
        scores = VolumeScores(dataset.classes, next(model.parameters()).device)
        cues = CueAccuracy(dataset) if run.dataset == "cue_volumes" else None

        def watch(index: int, prediction: Tensor, label: Tensor) -> None:
            gallery.update(index, prediction)
            scores.update(dataset.name(index), prediction, label, dataset.spacing(index))
            if cues:
                cues.update(index, prediction, label)

        size = tuple(self.input_size(dataset, run).values())
        confusion = evaluate_volumes(model, dataset, size, run.batch_size, run.precision, on_volume=watch)
        return _counted(confusion, cues) | scores.metrics(), gallery.arrays() if run.seed == 0 else {}


def _counted(confusion: ConfusionMatrix, cues: CueAccuracy | None) -> dict[str, object]:
    return confusion.metrics() | (cues.metrics() if cues else {}) | {"confusion": confusion.counts.tolist()}


def task_of(run: RunParameters) -> Task:
    """Return the task of a run's data; InputError where it is asked for what its kind of data does not have."""
    if run.dataset not in VOLUME_DATA:
        return ImageTask()
    if run.evaluate:
        raise InputError(f"parameter evaluate={run.evaluate!r}: of images alone; must be empty for {run.dataset}")
    return VolumeTask()

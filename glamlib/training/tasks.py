"""What differs between images and volumes in a run: augmentation, input, loss, evaluation. The loop is one."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from glamlib.data.datasets import VOLUMES, SegmentationDataset, VolumeDataset
from glamlib.data.transforms import TrainTransform, normalise
from glamlib.data.volume_transforms import VolumeTransform
from glamlib.errors import InputError
from glamlib.evaluation.cues import CueAccuracy
from glamlib.evaluation.evaluate import evaluate
from glamlib.evaluation.gallery import Gallery
from glamlib.evaluation.inference import predict_classes, predict_volume_classes, view_size
from glamlib.evaluation.insight import effective_receptive_field
from glamlib.evaluation.metrics import ConfusionMatrix, VolumeScores
from glamlib.evaluation.processes import process_count
from glamlib.studies.parameters import InferenceOptions, RunParameters
from glamlib.training.datasets import VOLUME_DATA, data_options
from glamlib.training.losses import cross_entropy, deeply_supervised
from glamlib.zoo import model_config

AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss, as in the published recipe
Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
Watch = Callable[[int, Tensor, Tensor], None]
Evaluation = tuple[dict[str, object], dict[str, np.ndarray]]  # metrics for the record, pictures beside it


class ImageTask:
    """Images: cross-entropy, inference whole or by sliding window."""

    ndim, metric, augmentation = 2, "miou", TrainTransform
    divisible = True  # the loss is a mean over pixels, so a batch's is the weighted mean of its parts'

    def transform(self, dataset: SegmentationDataset, run: RunParameters) -> Transform | None:
        """Return what augments a training item, None where nothing does."""
        return TrainTransform(**run.augment) if run.augment else None

    def prepare(self, items: Tensor) -> Tensor:
        """Return a batch of items as the network wants it."""
        return normalise(items)

    def loss(
        self,
        outputs: tuple[Tensor, Tensor | None],
        labels: Tensor,
        ignore_index: int,
        count: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of ``model(x, auxiliary=True)``; ``count`` and ``weights`` are those of `cross_entropy`."""
        logits, auxiliary = outputs
        loss = cross_entropy(logits, labels, ignore_index, count, weights)
        if auxiliary is not None:
            loss = loss + AUXILIARY_WEIGHT * cross_entropy(auxiliary, labels, ignore_index, count, weights)
        return loss

    def input_size(self, dataset: SegmentationDataset, run: RunParameters) -> dict[str, int]:
        """Return height and width, of volumes also depth, that costs are given for: a test image's, or a patch's."""
        height, width = view_size(*dataset[0][1].shape, InferenceOptions.from_dict(run.inference))
        return {"height": height, "width": width}

    def confusion(
        self, model: nn.Module, dataset: SegmentationDataset, run: RunParameters, watch: Watch | None = None
    ) -> ConfusionMatrix:
        """Return what `glamlib.evaluation.evaluate` counts when the run's inference predicts every item."""
        # whole images are larger than crops: no more of them than a process trains on at once
        batch_size = max(1, run.batch_size // (process_count() * run.accumulate))
        options = InferenceOptions.from_dict(run.inference)
        predict = partial(predict_classes, model, options=options, precision=run.precision)
        return evaluate(model, dataset, batch_size, watch, predict)

    def score(self, model: nn.Module, dataset: SegmentationDataset, run: RunParameters) -> float:
        """Return the one number, higher is better, by which weights are chosen on validation data."""
        return self.confusion(model, dataset, run).metrics()["miou"]

    def evaluate(self, model: nn.Module, dataset: SegmentationDataset, run: RunParameters) -> Evaluation:
        """Return the metrics on test data, and, of the first seed, pictures."""
        gallery = Gallery(dataset, 4, InferenceOptions.from_dict(run.inference))
        cues = CueAccuracy(dataset) if run.dataset == "scenes" else None

        def watch(index: int, prediction: Tensor, label: Tensor) -> None:
            gallery.update(index, prediction, label)
            if cues:
                cues.update(index, prediction, label)

        confusion = self.confusion(model, dataset, run, watch)
        pictures = {}
        if run.seed == 0:
            pictures = gallery.arrays()
            erf = effective_receptive_field(model, torch.from_numpy(pictures["images"]))
            pictures["erf"] = (erf / erf.max()).astype(np.float16)
        return confusion.metrics() | (cues.metrics() if cues else {}), pictures


class VolumeTask:
    """Volumes: Dice and cross-entropy at several resolutions, patches, sliding-window inference, Dice and HD95.

    Its methods are those of `ImageTask`.
    """

    ndim, metric, augmentation = 3, "dice", VolumeTransform
    divisible = False  # the Dice loss is of the whole batch

    def transform(self, dataset: VolumeDataset, run: RunParameters) -> Transform | None:
        return VolumeTransform.for_dataset(dataset, **run.augment) if run.augment else None

    def prepare(self, items: Tensor) -> Tensor:
        return items

    def loss(
        self,
        outputs: tuple[Tensor, list[Tensor]],
        labels: Tensor,
        ignore_index: int,
        count: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        logits, lower = outputs
        return deeply_supervised([logits, *lower], labels, ignore_index, weights)

    def input_size(self, dataset: VolumeDataset, run: RunParameters) -> dict[str, int]:
        depth, height, width = run.augment["patch_size"] if run.augment else dataset[0][1].shape
        return {"depth": depth, "height": height, "width": width}

    def confusion(
        self, model: nn.Module, dataset: VolumeDataset, run: RunParameters, watch: Watch | None = None
    ) -> ConfusionMatrix:
        size = tuple(self.input_size(dataset, run).values())
        predict = partial(
            predict_volume_classes, model, patch_size=size, batch_size=run.batch_size, precision=run.precision
        )

        def restore(index: int, prediction: Tensor, label: Tensor) -> Tensor:
            restored = dataset.preprocessing.restore(prediction.numpy(), dataset.spacing(index), label.shape)
            return torch.from_numpy(restored)

        return evaluate(model, dataset, 1, watch, predict, restore if dataset.preprocessing else None)

    def score(self, model: nn.Module, dataset: VolumeDataset, run: RunParameters) -> float:
        """Return the Dice of the structures over the voxels of all cases at once: nnU-Net's score while it trains."""
        iou = torch.tensor(self.confusion(model, dataset, run).metrics()["iou"][1:])
        return (2 * iou / (1 + iou)).nanmean().item()

    def evaluate(self, model: nn.Module, dataset: VolumeDataset, run: RunParameters) -> Evaluation:
        gallery = Gallery(dataset, count=3)
        scores = VolumeScores(dataset.classes)
        cues = CueAccuracy(dataset) if run.dataset == "cue_volumes" else None

        def watch(index: int, prediction: Tensor, label: Tensor) -> None:
            gallery.update(index, prediction, label)
            counted = prediction.where(label != dataset.ignore_index, 0)
            scores.update(dataset.name(index), counted, label, dataset.spacing(index))
            if cues:
                cues.update(index, prediction, label)

        metrics = (
            self.confusion(model, dataset, run, watch).metrics() | (cues.metrics() if cues else {}) | scores.metrics()
        )
        return metrics, gallery.arrays() if run.seed == 0 else {}


def task_of(run: RunParameters) -> ImageTask | VolumeTask:
    """Return the task of a run's data; InputError for inference options, which volumes do not have."""
    if run.dataset not in VOLUME_DATA:
        return ImageTask()
    if run.evaluate:
        raise InputError(f"parameter evaluate={run.evaluate!r}: of images alone; must be empty for {run.dataset}")
    return VolumeTask()


def check_run(run: RunParameters) -> None:
    """Raise InputError, one line that says what is allowed, for a model, data or options that cannot be used together.

    The schema of an option is the annotation of what takes it, so that a new option is checked as soon as it exists.
    """
    data, task = data_options(run), task_of(run)
    if run.validate_every and not data.get("val"):
        raise InputError(f"parameter validate_every={run.validate_every}: the option of data val is missing")
    if model_config(run.model, **run.overrides).ndim != task.ndim:
        raise InputError(f"model {run.model!r}: cannot be used on {run.dataset}, which has {task.ndim} dimensions")
    if run.augment:
        task.augmentation.from_dict(run.augment)
    elif run.dataset in VOLUMES:
        raise InputError("missing option of augment: patch_size, because volumes differ in size")

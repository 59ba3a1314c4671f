"""What differs between images and volumes in a run: augmentation, input, loss, evaluation. The loop is one."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from glamlib.data.datasets import VOLUMES, VolumeDataset
from glamlib.data.scenes import CueScenes, CueVolumes
from glamlib.data.transforms import TrainTransform, normalise
from glamlib.data.volume_transforms import VolumeTransform
from glamlib.errors import InputError
from glamlib.evaluation.cues import CueAccuracy
from glamlib.evaluation.evaluate import Gallery, ImageScores, evaluate, process_count
from glamlib.evaluation.inference import predict_classes, predict_volume_classes, view_size
from glamlib.evaluation.metrics import ConfusionMatrix, VolumeScores
from glamlib.studies.parameters import InferenceOptions, RunParameters
from glamlib.training.datasets import GENERATED, VOLUME_DATA, AnyDataset, data_options
from glamlib.training.losses import cross_entropy, deeply_supervised
from glamlib.zoo import model_config

AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss, as in the published recipe
Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
Watch = Callable[[int, Tensor, Tensor], None]
Evaluation = tuple[dict[str, object], dict[str, np.ndarray]]  # metrics for the record, pictures beside it


class ImageTask:
    """Images: cross-entropy, inference whole or by sliding window."""

    ndim, metric, augmentation, pictures = 2, "miou", TrainTransform, 4
    divisible = True  # the loss is a mean over pixels, so a batch's is the weighted mean of its parts'
    prepare = staticmethod(normalise)  # a batch of items, as the network wants it

    def transform(self, dataset: AnyDataset, run: RunParameters) -> Transform | None:
        """Return what augments a training item, None where nothing does."""
        return TrainTransform(**run.augment) if run.augment else None

    def loss(self, outputs: tuple, labels: Tensor, void: int, count: Tensor, weights: Tensor | None) -> Tensor:
        """Return the loss of ``model(x, auxiliary=True)``; ``void`` is ignored, the rest is as in `cross_entropy`."""
        logits, auxiliary = outputs
        loss = cross_entropy(logits, labels, void, count, weights)
        if auxiliary is not None:
            loss = loss + AUXILIARY_WEIGHT * cross_entropy(auxiliary, labels, void, count, weights)
        return loss

    def input_size(self, dataset: AnyDataset, run: RunParameters) -> dict[str, int]:
        """Return height and width, of volumes also depth, that costs are given for: a test image's, or a patch's."""
        height, width = view_size(*dataset[0][1].shape, InferenceOptions.from_dict(run.inference))
        return {"height": height, "width": width}

    def confusion(
        self, model: nn.Module, dataset: AnyDataset, run: RunParameters, watch: Watch | None = None
    ) -> ConfusionMatrix:
        """Return what `glamlib.evaluation.evaluate` counts when the run's inference predicts every item."""
        # whole images are larger than crops: no more at once than in training
        batch_size = max(1, run.batch_size // (process_count() * run.accumulate))
        options = InferenceOptions.from_dict(run.inference)
        predict = partial(predict_classes, model, options=options, precision=run.precision)
        return evaluate(model, dataset, batch_size, watch, predict)

    def score_name(self, run: RunParameters) -> str:
        """Return what `score` is; of generated data it is what they ask, which no outline of a shape blurs."""
        return "right_given_found" if run.dataset in GENERATED else self.metric

    def score(self, model: nn.Module, dataset: AnyDataset, run: RunParameters) -> float:
        """Return the one number, higher is better, by which weights are chosen on validation data."""
        if self.score_name(run) == self.metric:
            return self.confusion(model, dataset, run).metrics()["miou"]
        cues = CueAccuracy(dataset)
        self.confusion(model, dataset, run, cues.update)
        return cues.metrics()["right_given_found"]

    def scores(self, dataset: AnyDataset) -> list:
        """Return what counts beside the confusion matrix, by ``update``, a `Watch`, and ``metrics()``."""
        return [CueAccuracy(dataset) if isinstance(dataset, CueScenes) else ImageScores(dataset)]

    def evaluate(self, model: nn.Module, dataset: AnyDataset, run: RunParameters) -> Evaluation:
        """Return the metrics on test data, and, of the first seed, pictures."""
        gallery = Gallery(dataset, self.pictures, InferenceOptions.from_dict(run.inference))
        scores = self.scores(dataset)

        def watch(index: int, prediction: Tensor, label: Tensor) -> None:
            for each in (gallery, *scores):
                each.update(index, prediction, label)

        metrics = self.confusion(model, dataset, run, watch).metrics()
        for each in scores:
            metrics |= each.metrics()
        return metrics, gallery.arrays() if run.seed == 0 else {}


class VolumeTask(ImageTask):
    """Volumes: Dice and cross-entropy at several resolutions, patches, sliding-window inference, Dice and HD95."""

    ndim, metric, augmentation, pictures = 3, "dice", VolumeTransform, 3
    divisible = False  # the Dice loss is of the whole batch
    prepare = staticmethod(Tensor.float)  # they are normalised already

    def transform(self, dataset: VolumeDataset, run: RunParameters) -> Transform | None:
        return VolumeTransform.for_dataset(dataset, **run.augment) if run.augment else None

    def loss(self, outputs: tuple, labels: Tensor, void: int, count: Tensor, weights: Tensor | None) -> Tensor:
        logits, lower = outputs
        return deeply_supervised([logits, *lower], labels, void, weights)

    def input_size(self, dataset: VolumeDataset, run: RunParameters) -> dict[str, int]:
        depth, height, width = run.augment["patch_size"] if run.augment else dataset[0][1].shape
        return {"depth": depth, "height": height, "width": width}

    def confusion(
        self, model: nn.Module, dataset: VolumeDataset, run: RunParameters, watch: Watch | None = None
    ) -> ConfusionMatrix:
        how = {"patch_size": tuple(self.input_size(dataset, run).values()), "batch_size": run.batch_size}
        predict = partial(predict_volume_classes, model, **how, precision=run.precision)

        def restore(index: int, prediction: Tensor, label: Tensor) -> Tensor:
            restored = dataset.preprocessing.restore(prediction.numpy(), dataset.spacing(index), label.shape)
            return torch.from_numpy(restored)

        return evaluate(model, dataset, 1, watch, predict, restore if dataset.preprocessing else None)

    def score(self, model: nn.Module, dataset: VolumeDataset, run: RunParameters) -> float:
        """Return Dice over the voxels of all cases at once, nnU-Net's score in training; of generated ones as in 2D."""
        if run.dataset in GENERATED:
            return super().score(model, dataset, run)
        iou = torch.tensor(self.confusion(model, dataset, run).metrics()["iou"][1:])
        return (2 * iou / (1 + iou)).nanmean().item()

    def scores(self, dataset: VolumeDataset) -> list:
        cues = [CueAccuracy(dataset)] if isinstance(dataset, CueVolumes) else []
        return [*cues, VolumeScores(dataset)]


def task_of(run: RunParameters) -> ImageTask | VolumeTask:
    """Return the task of a run's data; InputError for inference options, which volumes do not have."""
    if run.dataset not in VOLUME_DATA:
        return ImageTask()
    if run.evaluate:
        raise InputError(f"parameter evaluate={run.evaluate!r}: of images alone; must be empty for {run.dataset}")
    return VolumeTask()


def check_run(run: RunParameters) -> None:
    """Raise InputError for a model, data or options that cannot be used together."""
    data, task = data_options(run), task_of(run)
    if run.validate_every and not data.get("val"):
        raise InputError(f"parameter validate_every={run.validate_every}: the option of data val is missing")
    if model_config(run.model, **run.overrides).ndim != task.ndim:
        raise InputError(f"model {run.model!r}: cannot be used on {run.dataset}, which has {task.ndim} dimensions")
    if run.augment:
        task.augmentation.from_dict(run.augment)
    elif run.dataset in VOLUMES:
        raise InputError("missing option of augment: patch_size, because volumes differ in size")

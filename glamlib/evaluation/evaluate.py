"""Evaluation over a data set by all processes of a run: its confusion matrix, and a few predictions to show.

torchrun or accelerate launch starts the processes; without a launcher there is one.
"""

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from glamlib.data.datasets import SegmentationDataset, VolumeDataset
from glamlib.data.transforms import resize
from glamlib.errors import InputError
from glamlib.evaluation.inference import batches_of_one_size, predict_classes, view_size
from glamlib.evaluation.metrics import ConfusionMatrix
from glamlib.studies.parameters import InferenceOptions


def is_main() -> bool:
    """Return whether this is the process that writes files: that of rank 0, known before any communication."""
    return int(os.environ.get("RANK", 0)) == 0


def process_count() -> int:
    """Return how many processes the run has."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_share(count: int) -> range:
    """Return which of ``count`` items are this process's; every item belongs to exactly one process."""
    return range(distributed.get_rank() if distributed.is_initialized() else 0, count, process_count())


def gathered(value: object) -> list[object]:
    """Return every process's ``value``, in order of rank, to all; small ones, of plain Python and numpy."""
    values = [value] * process_count()
    if distributed.is_initialized():
        distributed.all_gather_object(values, value)
    return values


def evaluate(
    model: nn.Module,
    dataset: SegmentationDataset | VolumeDataset,
    batch_size: int = 1,
    on_image: Callable[[int, Tensor, Tensor], None] | None = None,
    predict: Callable[[Tensor], Tensor] | None = None,
    restore: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> ConfusionMatrix:
    """Predict every item of ``dataset``, of any sizes, each process its share, and count at the labels' own size.

    Args:
        model: in evaluation mode afterwards.
        batch_size: items of one size that are predicted together.
        on_image: called with (index, prediction ``(*size)``, label ``(*size)``) for every item, on the CPU.
        predict: maps a batch of items ``(B, C, *size)`` to classes ``(B, *size)`` on the CPU; None: `predict_classes`.
        restore: maps (index, classes, label) to classes of the label's size, where that is another one.

    Raises InputError for an item too large for the memory (names it) and a label out of range.
    """
    model.eval()
    predict = predict or partial(predict_classes, model)
    confusion = ConfusionMatrix(model.num_classes, dataset.ignore_index).to(next(model.parameters()).device)
    items = ((index, *dataset[index]) for index in own_share(len(dataset)))
    for batch in batches_of_one_size(items, batch_size):
        indices, images, labels = zip(*batch, strict=True)
        try:
            predictions = predict(torch.stack(images))
        except InputError as error:
            raise InputError(f"{', '.join(dataset.name(index) for index in indices)}: {error}") from None
        if restore is not None:
            predictions = torch.stack(list(map(restore, indices, predictions, labels)))
        confusion.update(predictions, torch.stack(labels))
        if on_image is not None:
            for index, prediction, label in zip(indices, predictions, labels, strict=True):
                on_image(index, prediction, label)
    return confusion


class ImageScores:
    """Pixels of each image by class, so that scores over other sets of images can be formed afterwards."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset
        self.cases: dict[int, dict[str, object]] = {}

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Add an image, integer ``(H, W)`` tensors; the signature is `evaluate`'s ``on_image``."""
        known = label != self.dataset.ignore_index
        truth, guess = label[known].long(), prediction[known].long()
        counts = [part.bincount(minlength=len(self.dataset.classes)) for part in (truth[truth == guess], truth, guess)]
        classes = (counts[1] + counts[2]).nonzero()[:, 0]
        found = zip(("hits", "truth", "guess"), (part[classes].tolist() for part in counts), strict=True)
        self.cases[index] = {"name": self.dataset.name(index), "classes": classes.tolist(), **dict(found)}

    def metrics(self) -> dict[str, object]:
        """Return cases: of each image its name, the classes in truth or prediction, and their pixels that are right
        (hits), true (truth) and predicted (guess); of all processes."""
        cases = {index: case for own in gathered(self.cases) for index, case in own.items()}
        return {"cases": [case for _, case in sorted(cases.items())]}


class Gallery:
    """Predictions of ``count`` test images or volumes, evenly spaced over the set and so the same for every run.

    Of a volume it shows one slice across the first axis: the one with the most voxels of structures in the truth.
    """

    def __init__(
        self, dataset: SegmentationDataset | VolumeDataset, count: int, options: InferenceOptions | None = None
    ) -> None:
        self.dataset, self.options = dataset, options  # images are shown at the size at which they are predicted
        self.chosen = set(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist())
        self.shown: dict[int, list[np.ndarray]] = {}  # by index: image, label, prediction

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Take what `evaluate` calls ``on_image`` with, if the item is one of the chosen."""
        if index not in self.chosen:
            return
        image, _ = self.dataset[index]
        if label.ndim == 3:
            depth = int(((label > 0) & (label != self.dataset.ignore_index)).flatten(1).sum(1).argmax())
            image = F.interpolate(image[None, :1], label.shape, mode="nearest-exact")[0]  # labels may have own voxels
            image, label, prediction = image[0, depth], label[depth], prediction[depth]
            image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6) * 255
        elif self.options:
            size = view_size(*label.shape, self.options)
            (image, label), (_, prediction) = resize(image, label, size), resize(image, prediction, size)
        self.shown[index] = [plane.numpy().astype(np.uint8) for plane in (image, label, prediction)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return images, labels and predictions, all uint8, cut to the smallest; to be called in all processes.

        Labels and predictions are ``(n, H, W)``, images ``(n, 3, H, W)``; of volumes ``(n, H, W)``, grey from 0 to 255.
        """
        shown = {index: planes for part in gathered(self.shown) for index, planes in part.items()}
        height, width = np.min([label.shape for _, label, _ in shown.values()], axis=0)
        return {
            name: np.stack([shown[index][number][..., :height, :width] for index in sorted(shown)])
            for number, name in enumerate(("images", "labels", "predictions"))
        }

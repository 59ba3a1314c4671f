"""Inference over a data set, and its confusion matrix."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from glamlib.data.datasets import SegmentationDataset, VolumeDataset
from glamlib.errors import InputError
from glamlib.evaluation.inference import batches_of_one_size, predict_classes
from glamlib.evaluation.metrics import ConfusionMatrix
from glamlib.evaluation.processes import own_share


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

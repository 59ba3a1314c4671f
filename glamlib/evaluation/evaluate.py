"""Inference over a data set of images, and the metrics of it.

MERGED: Sliding-window inference over a data set of volumes.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glamlib.data.datasets import SegmentationDataset
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import InputError
from glamlib.evaluation.inference import batches_of_one_size, check_size, predict_classes
from glamlib.evaluation.metrics import ConfusionMatrix
from glamlib.evaluation.processes import own_share, summed
from glamlib.evaluation.sliding_window import slide_gaussian
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.volumes import VolumeSegmenter
from glamlib.studies.parameters import InferenceOptions


def evaluate(
    model: EncoderDecoder,
    dataset: SegmentationDataset,
    batch_size: int = 1,
    precision: str = "fp32",
    on_image: Callable[[int, Tensor, Tensor], None] | None = None,
    options: InferenceOptions | None = None,
) -> ConfusionMatrix:
    """Predict every image of ``dataset``, and count at the labels' own size.

    In a run of several processes each predicts its share of the images, and all get the counts of all.

    Args:
        model: in evaluation mode afterwards, on whatever device it is.
        dataset: pairs of uint8 image and label, of any sizes.
        batch_size: images of one size that are predicted together.
        precision: "fp32" or "bf16".
        on_image: called with (index, prediction ``(H, W)``, label ``(H, W)``) for every image, on the CPU.
        options: how an image is predicted; None for whole, once.

    Raises:
        InputError: an image smaller than a window of the first stage, or too large for the memory (names it), a label
            out of range.
    """
    options = options or InferenceOptions()
    model.eval()
    confusion = ConfusionMatrix(model.num_classes, dataset.ignore_index)

    def items() -> Iterator[tuple[int, Tensor, Tensor]]:
        for index in own_share(len(dataset)):
            image, label = dataset[index]
            check_size(dataset.name(index), *label.shape, model.window_pixels, options)
            yield index, image, label

    for batch in batches_of_one_size(items(), batch_size):
        indices, images, labels = zip(*batch, strict=True)
        try:
            predictions = predict_classes(model, torch.stack(images), options, precision)
        except InputError as error:
            raise InputError(f"{', '.join(dataset.name(index) for index in indices)}: {error}") from None
        confusion.update(predictions, torch.stack(labels))
        if on_image is not None:
            for index, prediction, label in zip(indices, predictions, labels, strict=True):
                on_image(index, prediction, label)
    confusion.counts = summed(confusion.counts)
    return confusion


@torch.inference_mode()
def evaluate_volumes(
    model: VolumeSegmenter,
    dataset: VolumeDataset,
    patch_size: tuple[int, int, int],
    batch_size: int = 1,
    precision: str = "fp32",
    on_volume: Callable[[int, Tensor, Tensor], None] | None = None,
) -> ConfusionMatrix:
    """Predict every volume from patches that overlap by half, weighted by a Gaussian, and count.

    No part of a volume is left out, whatever the truth says there (the released code skips tiles without labels).

    Args:
        model: in evaluation mode afterwards, on whatever device it is.
        dataset: volumes of any sizes; one smaller than a patch is padded with its smallest value and cut again.
        patch_size: (D, H, W), that of training.
        batch_size: patches that are predicted together.
        precision: "fp32" or "bf16".
        on_volume: called with (index, prediction ``(D, H, W)``, label ``(D, H, W)``), on the CPU.
    """
    model.eval()
    device = next(model.parameters()).device
    confusion = ConfusionMatrix(model.num_classes, dataset.ignore_index)
    for index in range(len(dataset)):
        image, label = dataset[index]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = slide_gaussian(model, image[None].to(device), patch_size, batch_size, outside=float(image.min()))
        prediction = logits[0].argmax(dim=0).cpu()  # (D, H, W)
        confusion.update(prediction, label)
        if on_volume is not None:
            on_volume(index, prediction, label)
    return confusion

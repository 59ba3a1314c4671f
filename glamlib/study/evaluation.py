"""Inference over a data set of images, and the metrics of it."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glamlib.data.registry import SegmentationDataset
from glamlib.errors import InputError
from glamlib.models.segmenter import EncoderDecoder

from .confusion import ConfusionMatrix
from .inference import batches_of_one_size, check_size, predict_classes
from .inference_options import InferenceOptions
from .processes import own_share, summed


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

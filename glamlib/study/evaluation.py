"""Whole-image inference over a data set, and the metrics of it."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glamlib.data.registry import SegmentationDataset
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.models.segmenter import Segmenter

from .confusion import ConfusionMatrix


def _batches(
    dataset: SegmentationDataset, batch_size: int, smallest: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield (indices, images, labels) of consecutive items of one size; InputError for an image below ``smallest``."""
    indices: list[int] = []
    pairs: list[tuple[Tensor, Tensor]] = []
    for index in range(len(dataset)):
        image, label = dataset[index]
        if min(label.shape) < smallest:
            raise InputError(
                f"{dataset.name(index)}: the image of {label.shape[0]}x{label.shape[1]} px is smaller than one window "
                f"of {smallest}x{smallest} px; use a larger image or a smaller window_size"
            )
        if pairs and (len(pairs) == batch_size or pairs[0][1].shape != label.shape):
            yield indices, *(torch.stack(tensors) for tensors in zip(*pairs, strict=True))
            indices, pairs = [], []
        indices.append(index)
        pairs.append((image, label))
    if pairs:
        yield indices, *(torch.stack(tensors) for tensors in zip(*pairs, strict=True))


@torch.inference_mode()
def evaluate(
    model: Segmenter,
    dataset: SegmentationDataset,
    batch_size: int = 1,
    precision: str = "fp32",
    on_image: Callable[[int, Tensor, Tensor], None] | None = None,
) -> ConfusionMatrix:
    """Predict every image of ``dataset`` whole, and count.

    Args:
        model: in evaluation mode afterwards, on whatever device it is.
        dataset: pairs of uint8 image and label, of any sizes.
        batch_size: images of one size that are predicted together.
        precision: "fp32" or "bf16".
        on_image: called with (index, prediction ``(H, W)``, label ``(H, W)``) for every image, on the CPU.

    Raises:
        InputError: an image smaller than a window of the first stage (names it), a label out of range.
    """
    model.eval()
    device = next(model.parameters()).device
    confusion = ConfusionMatrix(model.num_classes, dataset.ignore_index)
    for indices, images, labels in _batches(dataset, batch_size, model.window_pixels):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(normalise(images.to(device)))
        predictions = logits.argmax(dim=1).cpu()
        confusion.update(predictions, labels)
        if on_image is not None:
            for index, prediction, label in zip(indices, predictions, labels, strict=True):
                on_image(index, prediction, label)
    return confusion

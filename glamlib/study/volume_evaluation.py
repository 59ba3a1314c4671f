"""Sliding-window inference over a data set of volumes."""

from collections.abc import Callable

import torch
from torch import Tensor

from glamlib.data.volumes.dataset import VolumeDataset
from glamlib.models.volumes.network import VolumeSegmenter

from .confusion import ConfusionMatrix
from .sliding_window import slide_gaussian


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

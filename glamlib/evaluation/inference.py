"""Inference of images: whole or by sliding window, at several scales, mirrored; as mmsegmentation does it.

Logits of overlapping windows are averaged, then resized to the image's own size. Of several views of an image (scales,
mirrored or not) the probabilities are averaged, not the logits: mmsegmentation's ``slide_inference`` and ``aug_test``
(mmseg/models/segmentors/encoder_decoder.py, version 0.x). Images are resized here as for training, with antialiasing.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from glamlib.data.transforms import keep_ratio_size, normalise
from glamlib.errors import InputError
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.upernet import resize
from glamlib.studies.parameters import InferenceOptions


def view_sizes(height: int, width: int, options: InferenceOptions) -> list[tuple[int, int]]:
    """Return the size (height, width), one a scale, at which an image of ``height`` x ``width`` px is predicted."""
    if options.resize is None:
        return [(max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))) for scale in options.scales]
    long, short = options.resize
    return [keep_ratio_size(height, width, int(long * scale), int(short * scale)) for scale in options.scales]


def check_size(name: str, height: int, width: int, smallest: int, options: InferenceOptions) -> None:
    """Raise InputError that names the image where anything of it that is predicted is smaller than ``smallest`` px."""
    for size in view_sizes(height, width, options):
        given = f"the image of {height}x{width} px"
        if size != (height, width):
            given += f", resized to {size[0]}x{size[1]} px,"
        if options.crop and min(options.crop) < min(size):
            size, given = options.crop, f"a crop of {options.crop[0]}x{options.crop[1]} px"
        if min(size) < smallest:
            raise InputError(
                f"{name}: {given} is smaller than one window of {smallest}x{smallest} px; "
                "use a larger image or a smaller window_size"
            )


def batches_of_one_size(items: Iterable[tuple], batch_size: int) -> Iterator[list[tuple]]:
    """Yield lists of consecutive items (name, image, ...), at most ``batch_size``, whose images are of one size."""
    batch: list[tuple] = []
    for item in items:
        if batch and (len(batch) == batch_size or batch[0][1].shape != item[1].shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def slide_logits(model: EncoderDecoder, x: Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Return logits ``(B, K, H, W)``, float32, of windows of ``crop`` every ``stride`` px, averaged where they overlap.

    The last window of a row or column ends at the border, so that all are of one size; along a side that is no longer
    than the crop there is one window.
    """
    batch, _, height, width = x.shape
    total = x.new_zeros((batch, model.num_classes, height, width))
    count = x.new_zeros((height, width))
    for top in _starts(height, crop[0], stride[0]):
        for left in _starts(width, crop[1], stride[1]):
            window = (slice(top, top + crop[0]), slice(left, left + crop[1]))
            total[:, :, *window] += model(x[:, :, *window])
            count[window] += 1
    return total / count


def _starts(length: int, crop: int, stride: int) -> list[int]:
    """Return where windows of ``crop`` start along a side of ``length``."""
    last = max(length - crop, 0)
    return [*range(0, last, stride), last]


def predict_logits(model: EncoderDecoder, images: Tensor, options: InferenceOptions) -> Tensor:
    """Return what the classes of ``images`` are chosen by: ``(B, K, H, W)``, of the images' own size.

    Args:
        model: in evaluation mode, on the images' device.
        images: ``(B, 3, H, W)`` uint8 RGB.
        options: see `InferenceOptions`.

    Returns:
        Logits if the image is predicted once; else the mean of the probabilities of all views.
    """
    size = tuple(images.shape[2:])
    views = [(view, flipped) for view in view_sizes(*size, options) for flipped in ((False, True)[: 1 + options.flip])]
    if len(views) == 1:
        return _view_logits(model, images, *views[0], options)
    total = 0
    for view, flipped in views:
        total = total + _view_logits(model, images, view, flipped, options).float().softmax(dim=1)
    return total / len(views)


def _view_logits(
    model: EncoderDecoder, images: Tensor, view: tuple[int, int], flipped: bool, options: InferenceOptions
) -> Tensor:
    """Return the logits ``(B, K, H, W)`` of images resized to ``view``, back at their own size and orientation."""
    size = tuple(images.shape[2:])
    if view != size:
        images = functional.resize(images, list(view), InterpolationMode.BILINEAR, antialias=True)
    x = normalise(images.flip(-1) if flipped else images)
    logits = model(x) if options.mode == "whole" else slide_logits(model, x, options.crop, options.stride)
    if view != size:
        logits = resize(logits, size)
    return logits.flip(-1) if flipped else logits


@torch.inference_mode()
def predict_classes(model: EncoderDecoder, images: Tensor, options: InferenceOptions, precision: str) -> Tensor:
    """Return the classes ``(B, H, W)`` of images ``(B, 3, H, W)`` uint8, on the CPU; ``precision``: "fp32" or "bf16".

    Raises InputError where the device's memory does not suffice.
    """
    device = next(model.parameters()).device
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = predict_logits(model, images.to(device), options)
        return logits.argmax(dim=1).cpu()
    except torch.OutOfMemoryError:
        count, _, height, width = images.shape
        raise InputError(
            f"{count} image(s) of {height}x{width} px do not fit into the memory of {device}; "
            "use a smaller batch, or windows (mode slide)"
        ) from None

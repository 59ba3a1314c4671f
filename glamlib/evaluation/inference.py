"""Inference: images whole or by sliding window, at several scales, mirrored, as in mmsegmentation; volumes by patches.

Logits of overlapping windows are averaged, then resized to the image's own size; of several views of an image (scales,
mirrored or not) the probabilities are, as in mmsegmentation 0.x (mmseg/models/segmentors/encoder_decoder.py).
"""

import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice, product

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode, functional

from glamlib.data.transforms import keep_ratio_size, normalise
from glamlib.errors import InputError
from glamlib.models.segmenter import EncoderDecoder
from glamlib.models.upernet import resize
from glamlib.models.volumes import VolumeSegmenter
from glamlib.studies.parameters import InferenceOptions


def view_size(height: int, width: int, options: InferenceOptions, scale: float = 1.0) -> tuple[int, int]:
    """Return the size (height, width) at which an image of ``height`` x ``width`` px is predicted at a scale."""
    if options.resize is not None:
        long, short = options.resize
        return keep_ratio_size(height, width, int(long * scale), int(short * scale))
    height, width = options.size or (height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def batches_of_one_size(items: Iterable[tuple], batch_size: int) -> Iterator[list[tuple]]:
    """Yield lists of consecutive items (name, image, ...), at most ``batch_size``, whose images are of one size."""
    for _, same_size in groupby(items, key=lambda item: item[1].shape):
        while batch := list(islice(same_size, batch_size)):
            yield batch


def slide_logits(
    model: Callable, x: Tensor, window: Sequence[int], stride: Sequence[int], mode: str = "constant", batch: int = 1
) -> Tensor:
    """Return logits ``(B, K, *size)``, float32, of ``x`` ``(B, C, *size)`` in windows, blended where they overlap.

    The last window along a side ends at the border; a side shorter than the window is padded with 0, evenly on both
    ends. ``mode`` "gaussian" gives the centre of a window more weight.
    """
    from monai.inferers import sliding_window_inference  # importing MONAI takes seconds, and most runs do without it

    # MONAI takes the overlap as a fraction and rounds the stride down: half an element more gives exactly this one
    overlap = [max(0.0, 1 - (step + 0.5) / side) for side, step in zip(window, stride, strict=True)]

    def in_full(part: Tensor) -> Tensor:  # under bfloat16 the sum of weighted windows would lose small weights
        return model(part).float()

    return sliding_window_inference(x, window, batch, in_full, overlap=overlap, mode=mode)


def predict_logits(
    model: EncoderDecoder, images: Tensor, options: InferenceOptions, probabilities: bool = False
) -> Tensor:
    """Return what the classes of uint8 ``images`` ``(B, 3, H, W)`` are chosen by, ``(B, K, H, W)``.

    These are logits of a single view unless ``probabilities`` are asked for, else the mean probabilities of all views.
    """
    size = tuple(images.shape[2:])
    views = [view_size(*size, options, scale) for scale in options.scales]

    def logits_of(view: tuple[int, int], flipped: bool) -> Tensor:
        seen = images
        if view != size:
            seen = functional.resize(images, list(view), InterpolationMode.BILINEAR, antialias=True)
        x = normalise(seen.flip(-1) if flipped else seen)
        if options.mode == "whole":
            logits = model(x)
        else:
            window = tuple(map(min, options.crop, view))
            logits = slide_logits(model, x, window, options.stride, batch=len(x))
        logits = resize(logits, size) if view != size else logits
        return logits.flip(-1) if flipped else logits

    if len(views) == 1 and not options.flip and not probabilities:
        return logits_of(views[0], False)
    found = [logits_of(*view).float().softmax(dim=1) for view in product(views, (False, True)[: 1 + options.flip])]
    return sum(found) / len(found)


def predict_classes(
    model: EncoderDecoder,
    images: Tensor,
    options: InferenceOptions | None = None,
    precision: str = "fp32",
    confidence: bool = False,
) -> Tensor:
    """Return the classes ``(B, H, W)`` of images ``(B, 3, H, W)`` uint8, on the CPU; ``precision``: "fp32" or "bf16".

    With ``confidence`` also their probabilities, 0 to 255: uint8 ``(B, 2, H, W)``. InputError if memory is too small.
    """

    def classes_of(x: Tensor) -> Tensor:
        scores = predict_logits(model, x, options or InferenceOptions(), confidence)  # (B, K, H, W)
        if not confidence:
            return scores.argmax(dim=1)
        best, classes = scores.max(dim=1)
        return torch.stack([classes.to(torch.uint8), best.mul(255).round().to(torch.uint8)], dim=1)

    return _classes(model, images, precision, classes_of)


def predict_volume_classes(
    model: VolumeSegmenter, volumes: Tensor, patch_size: Sequence[int], batch_size: int, precision: str
) -> Tensor:
    """Return the classes ``(B, D, H, W)`` of volumes ``(B, C, D, H, W)``, on the CPU; otherwise as `predict_classes`.

    Patches, ``batch_size`` together, overlap by half and are weighted by a Gaussian; a volume smaller than one has its
    channels' smallest values around it. No part is left out (the released code skips tiles without labels).
    """
    stride = [max(side // 2, 1) for side in patch_size]

    def classes_of(x: Tensor) -> Tensor:
        low = x.amin((0, 2, 3, 4), keepdim=True)  # so that the padding, 0, is each channel's smallest value
        logits = slide_logits(lambda part: model(part + low), x - low, patch_size, stride, "gaussian", batch_size)
        return logits.argmax(dim=1)

    return _classes(model, volumes, precision, classes_of)


@torch.inference_mode()
def _classes(model: nn.Module, items: Tensor, precision: str, classes_of: Callable[[Tensor], Tensor]) -> Tensor:
    device = next(model.parameters()).device
    what = f"{len(items)} item(s) of {'x'.join(str(side) for side in items.shape[2:])} do not fit"
    less = "windows (--slide) or a smaller size (--resize)" if items.ndim == 4 else "a coarser data.spacing"
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    with memory_suffices(device, what, f"a smaller batch (--batch), another device or {less}"), autocast:
        return classes_of(items.to(device)).cpu()


@contextmanager
def memory_suffices(device: torch.device, what: str, less: str) -> Iterator[None]:
    """Turn every kind of "out of memory" into an InputError, "``what`` into the memory of cpu; use ``less``"."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    data = getattr(psutil.Process().memory_info(), "data", np.inf)  # Linux alone says
    most = data + int(0.9 * psutil.virtual_memory().available)
    if device.type == "cpu" and most < (np.inf if limits[1] == resource.RLIM_INFINITY else limits[1]):
        # an allocation that the free memory does not hold fails: Linux would end the process later
        resource.setrlimit(resource.RLIMIT_DATA, (most, limits[1]))
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch has an error of its own for a GPU alone
        too_large = any(words in str(error) for words in ("can't allocate memory", "calculation overflowed"))
        if not too_large and not isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        raise InputError(f"{what} into the memory of {device}; use {less}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)

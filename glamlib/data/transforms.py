"""What happens to an image between the file and the network: resizing, training augmentation, normalisation.

The augmentation is the published recipe of the Swin and GLAM segmentation configs (mmsegmentation): random scale,
random crop, horizontal flip, photometric distortion, padding. Images and labels stay uint8 tensors until `normalise`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from glamlib.errors import Checked, InputError, Range

Side = Annotated[int, Range(1)]
Factor = Annotated[float, Range(0.01, 100)]
Share = Annotated[float, Range(0, 1)]
Byte = Annotated[int, Range(0, 255)]

VOID = 255  # the one label value of every data set here that no loss and no metric counts

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

CROP_TRIES = 10  # mmsegmentation's RandomCrop takes the last of ten crops when none keeps cat_max_ratio
BRIGHTNESS_DELTA = 32 / 255
STRETCH = (0.5, 1.5)  # of contrast and saturation
HUE_DELTA = 18 / 180  # of the colour circle: mmsegmentation's 18 counts OpenCV's hue steps, which are 2 degrees each


def keep_ratio_size(height: int, width: int, long: int, short: int) -> tuple[int, int]:
    """Return the (height, width) of the largest image of this aspect within ``long`` x ``short``, by mmcv's rule."""
    scale = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(image: Tensor, label: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize a uint8 image (3, H, W), bilinear and antialiased, and its label (H, W), nearest, to ``size`` = (h, w)."""
    image = functional.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    # NEAREST_EXACT samples at pixel centres, as bilinear does; plain NEAREST would shift the label by half a pixel.
    label = functional.resize(label[None], list(size), InterpolationMode.NEAREST_EXACT)[0]
    return image, label


def normalise(images: Tensor) -> Tensor:
    """Turn RGB images (B, 3, H, W) into float32, normalised by the ImageNet mean and standard deviation.

    They are uint8, or real numbers from 0 to 1. Raises InputError for anything else.
    """
    if images.is_floating_point() and 0 <= images.min() <= images.max() <= 1:
        images = images * 255
    elif images.dtype != torch.uint8:
        have = f"{images.dtype} from {images.min()} to {images.max()}"
        raise InputError(f"images of {have} cannot be normalised; allowed: torch.uint8, or real numbers 0..1")
    return functional.normalize(images.to(torch.float32), IMAGENET_MEAN, IMAGENET_STD)


@dataclass(frozen=True)
class TrainTransform(Checked):
    """Random scale, crop, flip and colour jitter; every draw comes from the generator that the call is given."""

    role: ClassVar[str] = "option of augment"

    crop_size: tuple[Side, Side]  # (height, width) of what comes out
    scale_range: tuple[Factor, Factor] = (0.5, 2.0)  # of the factor, drawn evenly, that the image is resized by
    flip: Share = 0.5  # probability of a horizontal flip
    jitter: bool = True  # whether to apply `photometric_distortion`
    # Draw the crop again, up to ten times, while one class covers this share of what is not void; mmsegmentation: 0.75
    cat_max_ratio: Annotated[float, Range(0.01, 1)] = 1.0
    # The factor multiplies these pixels, in which the image is fitted. mmsegmentation's img_scale; ADE20K: (2048, 512)
    long_short: tuple[Side, Side] | None = None
    # (r, g, b) around an image smaller than the crop. mmsegmentation pads with 0 after normalising: (124, 116, 104).
    fill: tuple[Byte, Byte, Byte] = (0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_range[0] > self.scale_range[1]:
            raise InputError(f"{self.role} scale_range={self.scale_range}: must be (low, high) with low <= high")
        if self.long_short and self.long_short[0] < self.long_short[1]:
            raise InputError(f"{self.role} long_short={self.long_short}: must be (long, short) with long >= short")

    def __call__(self, image: Tensor, label: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a new uint8 pair (3, h, w), (h, w) of the crop size from an image (3, H, W) and its label (H, W).

        Where the scaled image is smaller than the crop, the right and the bottom are ``fill`` and label 255.
        """
        (height, width), factor = label.shape, generator.uniform(*self.scale_range)
        if self.long_short is None:
            size = max(1, round(height * factor)), max(1, round(width * factor))
        else:  # cut to whole pixels, as mmsegmentation's Resize does
            size = keep_ratio_size(height, width, *(max(1, int(side * factor)) for side in self.long_short))
        image, label = resize(image, label, size)
        window = self._window(label, generator)
        image, label = image[:, *window], label[window]
        if generator.random() < self.flip:
            image, label = image.flip(-1), label.flip(-1)
        if self.jitter:
            image = photometric_distortion(image, generator)
        padding = [0, 0, self.crop_size[1] - label.shape[1], self.crop_size[0] - label.shape[0]]
        return functional.pad(image, padding, list(self.fill)), functional.pad(label[None], padding, VOID)[0]

    def _window(self, label: Tensor, generator: np.random.Generator) -> tuple[slice, slice]:
        """Draw the crop's rows and columns; smaller than the crop size where the label (H, W) is."""
        for _ in range(CROP_TRIES):
            sides = zip(label.shape, self.crop_size, strict=True)
            starts = [(generator.integers(max(have - want, 0) + 1), want) for have, want in sides]
            window = tuple(slice(start, start + want) for start, want in starts)
            if self.cat_max_ratio == 1.0:
                break
            counts = torch.bincount(label[window].flatten(), minlength=VOID + 1)[:VOID]
            if counts.max() < self.cat_max_ratio * counts.sum():
                break
        return window


def photometric_distortion(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Distort a uint8 RGB image (3, H, W) as mmsegmentation's PhotoMetricDistortion does: with probability 0.5 each."""
    rgb = image.to(torch.float32) / 255
    if generator.random() < 0.5:
        rgb = (rgb + generator.uniform(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA)).clamp_(0, 1)
    # mmsegmentation's contrast is a plain factor: torchvision's brightness. torchvision's own contrast keeps the mean.
    contrast = generator.uniform(*STRETCH) if generator.random() < 0.5 else 1.0
    contrast_first = generator.random() < 0.5
    if contrast_first:
        rgb = functional.adjust_brightness(rgb, contrast)
    if generator.random() < 0.5:
        rgb = scale_saturation(rgb, generator.uniform(*STRETCH))
    if generator.random() < 0.5:
        rgb = functional.adjust_hue(rgb, generator.uniform(-HUE_DELTA, HUE_DELTA))
    if not contrast_first:
        rgb = functional.adjust_brightness(rgb, contrast)
    return rgb.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def scale_saturation(rgb: Tensor, factor: float) -> Tensor:
    """Multiply the HSV saturation of an image (3, H, W) with values 0..1, up to saturation 1; hue and value stay."""
    # With V = max and S = (V - min) / V, this stretches every channel's distance from V. torchvision's
    # adjust_saturation blends with grey instead, which changes V.
    value = rgb.amax(0, keepdim=True)
    chroma = (value - rgb.amin(0, keepdim=True)).clamp_(min=1e-6)
    return value - (value - rgb) * (value / chroma).clamp_(max=factor)

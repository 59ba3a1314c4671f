"""Images and labels in files: how they are read, and the data set over them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from glamlib.data.layout import Catcher, FileItems, Item, Labels, Layout, by, reading
from glamlib.data.transforms import Side, resize
from glamlib.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")  # formats that keep class numbers as they are


def read_image(path: Path) -> Tensor:
    """Read an image file of any mode as uint8 RGB (3, H, W), turned as its EXIF orientation says.

    16-bit values are divided by 256, real values from 0 to 1 multiplied by 255; transparency is ignored. InputError
    names a file that is damaged, or has several frames or values of unknown range: 16 bits of which 8 are used may be
    an image of 8 bits, or black, and 32 bits of which more are used may end anywhere.
    """
    with _opened(path) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            image = Image.fromarray(_to_bytes(np.asarray(image), sixteen_bits=image.info["bits"] == 16))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def _to_bytes(values: np.ndarray, sixteen_bits: bool) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= (65535 if sixteen_bits else 255)):  # also where they are not numbers
        raise ValueError(f"values from {low} to {high}; allowed: 0..255, 0..65535 in 16 bits, or real numbers 0..1")
    if sixteen_bits and 0 < high < 256:
        raise ValueError(f"16 bits, and values only up to {high}; save it with 8 bits, or stretched to 0..65535")
    if values.dtype.kind == "f" and high <= 1:
        values = values * 255
    elif sixteen_bits:
        values = values // 256
    return values.round().astype(np.uint8)


def read_label(path: Path, coloured: bool = False) -> np.ndarray:
    """Read a label file's values as stored, uint8 (H, W), or its colours, each 65536 r + 256 g + b, int32 (H, W).

    InputError for a damaged file, more than 8 bits, a format that does not keep values, or colours in place of values.
    """
    with _opened(path) as label:
        modes = ("P", "L", "1", "RGB", "RGBA") if coloured else ("P", "L", "1")
        if label.mode not in modes:
            allowed = "or RGB" if coloured else "and for RGB name the classes' colors in classes.json"
            raise ValueError(f"its mode is {label.mode}; allowed: palettised (P) or grey (L, 1) of 8 bits, {allowed}")
        if label.info["format"] not in ("PNG", "TIFF", "BMP", "GIF"):
            raise ValueError(f"it is a {label.info['format']}, whatever its name says, which need not keep the values")
        if coloured:
            return np.asarray(label.convert("RGB"), np.int32) @ (65536, 256, 1)
        # PIL stretches grey values of 2 or 4 bits to 0..255
        return np.array(label, dtype=np.uint8) // (255 // (2 ** label.info["bits"] - 1) if label.mode == "L" else 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give the decoded and turned image; every error, also in the body, becomes an InputError that names the file."""
    with reading(path, "an image"):
        content = path.read_bytes()
        Image.open(io.BytesIO(content)).verify()  # checksums of a PNG, which loading does not look at
        with Image.open(io.BytesIO(content)) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a phone's MPO is a photo, followed by smaller copies of it
                raise ValueError(f"{frames} frames; allowed: one image in a file")
            image.load()
            tags = getattr(image, "tag_v2", {})  # PIL passes over some of a TIFF's
            inverted = tags.get(262) == 0 and image.mode not in ("1", "L")
            if inverted or tags.get(258) == (12,) or (tags.get(339) == (2,) and image.mode == "L"):
                raise ValueError("a TIFF of 12 bits, of signed bytes, or of more than 8 bits where 0 is white")
            bits = content[24] if image.format == "PNG" else tags.get(258, (8,))[0]
            image.info |= {"format": image.format, "bits": bits}
            yield ImageOps.exif_transpose(image)


def read_pair(labels: Labels, item: Item, each: Catcher = nullcontext) -> tuple[Tensor | None, Tensor | None, None]:
    """Return an image (3, H, W), its class numbers (H, W), both uint8, and no spacing: see `Layout.read`."""
    image = label = None
    with each():
        image = read_image(item.images[0])
    with each():
        label = torch.from_numpy(labels.decode(item.label, read_label(item.label, labels.coloured)))
    with each():
        if None not in (image, label) and image.shape[1:] != label.shape:
            have = f"{by(image.shape[1:])} and {by(label.shape)} (height x width)"
            raise InputError(f"{item.images[0]} and {item.label.name} differ in size: {have}")
    return image, label, None


class ImageFiles(FileItems):
    """A split of images as a data set: item i is (image uint8 (3, H, W) RGB, label uint8 (H, W)).

    Label values are 0..len(classes) - 1, or 255 for void. With ``size`` = (height, width) every item is resized to it,
    the image bilinear, the label nearest; None leaves the files' sizes. Errors are those of `Layout.chosen`.
    """

    def __init__(self, layout: Layout, split: str | None, *, size: tuple[Side, Side] | None = None) -> None:
        super().__init__(layout, split)
        self._size = size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label, _ = self.read(self.items[index])
        return (image, label) if self._size is None else resize(image, label, self._size)

"""Images and labels in files: how they are read and paired, what label values mean, and the data set over them."""

import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor

from glamlib.data.transforms import VOID, Side, resize
from glamlib.errors import InputError, check, one_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")  # formats that keep class numbers as they are
RGB = np.array([65536, 256, 1], np.int32)  # a colour as one number
NAMED = 3  # how many of several bad files an error names; check_data names them all

Palette = tuple[tuple[int, int, int], ...]


def read_image(path: Path) -> Tensor:
    """Read an image file of any mode as uint8 RGB (3, H, W), turned as its EXIF orientation says.

    16-bit values are divided by 256, real values from 0 to 1 multiplied by 255; transparency is ignored. InputError
    names a file that is damaged, or has several frames or values of unknown range: 16 bits of which 8 are used may be
    an image of 8 bits, or black.
    """
    with _opened(path) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            image = Image.fromarray(_to_bytes(np.asarray(image), sixteen_bits=image.mode.startswith("I;16")))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def _to_bytes(values: np.ndarray, sixteen_bits: bool) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535):  # also where they are not numbers
        raise ValueError(f"values from {low} to {high}; allowed: 0..255, 0..65535, or real numbers 0..1")
    if sixteen_bits and 0 < high < 256:
        raise ValueError(f"16 bits, and values only up to {high}; save it with 8 bits, or stretched to 0..65535")
    if values.dtype.kind == "f" and high <= 1:
        values = values * 255
    elif sixteen_bits or high > 255:
        values = values // 256
    return values.round().astype(np.uint8)


def read_label_values(path: Path) -> np.ndarray:
    """Read a label file's values as stored, uint8 (H, W); InputError if damaged, or neither palettised nor grey."""
    with _opened(path) as label:
        _check_label(label, ("P", "L", "1"), "palettised (P) or greyscale of at most 8 bits (L, 1), or name its colors")
        # PIL stretches grey values of 2 or 4 bits to 0..255
        return np.array(label, dtype=np.uint8) // (255 // (2 ** label.info["bits"] - 1) if label.mode == "L" else 1)


def read_label_colours(path: Path) -> np.ndarray:
    """Read a label file's colours, each 65536 r + 256 g + b, int32 (H, W); errors as of `read_label_values`."""
    with _opened(path) as label:
        _check_label(label, ("P", "L", "1", "RGB", "RGBA"), "palettised, grey or RGB, of 8 bits")
        return np.asarray(label.convert("RGB"), np.int32) @ RGB


def _check_label(label: Image.Image, modes: tuple[str, ...], allowed: str) -> None:
    if label.mode not in modes:
        raise ValueError(f"its mode is {label.mode}; allowed: {allowed}")
    if label.info["format"] not in ("PNG", "TIFF", "BMP", "GIF"):
        raise ValueError(f"it is a {label.info['format']}, whatever its name says, which need not keep the values")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give the decoded and turned image; every error, also in the body, becomes an InputError that names the file."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x89PNG"):
            _check_png(content)
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
    except Exception as problem:  # PIL's are of many types, depending on where the damage lies
        reason = " ".join(str(problem).partition(" <_io")[0].split())  # PIL names the buffer, too
        reason = reason or type(problem).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason})") from problem


def _check_png(content: bytes) -> None:
    """Raise ValueError for a chunk with a wrong checksum, or none: PIL does not check those that hold the pixels."""
    place, kind = 8, b""
    while kind != b"IEND":
        end = place + 8 + int.from_bytes(content[place : place + 4])
        if zlib.crc32(content[place + 4 : end]).to_bytes(4) != content[end : end + 4]:
            raise ValueError(f"the checksum of the chunk at byte {place} is wrong")
        place, kind = end + 4, content[place + 4 : place + 8]


def rgb(colour: int) -> list[int]:
    """Return [r, g, b] of a colour of `read_label_colours`."""
    return [int(colour) >> shift & 255 for shift in (16, 8, 0)]


def voc_colour(value: int) -> tuple[int, int, int]:
    """Return the PASCAL VOC colour of a label value: its bits go to r, g, b in turn, the lowest to the top bits."""
    return tuple(sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))


def spans(numbers: Iterable[int]) -> str:
    """Return whole numbers in short, for example "0..3, 7"."""
    # of numbers that follow one another, the difference to their rank is the same
    runs = groupby(enumerate(sorted(numbers)), lambda ranked: ranked[1] - ranked[0])
    runs = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


@dataclass(frozen=True)
class LabelCode:
    """How labels are stored: the value 0..255 of each class, and the values that stand for void.

    Of coloured labels the values are the classes' numbers, and one more for all ``colours`` that follow theirs: void.
    """

    values: tuple[int, ...]
    void: tuple[int, ...] = ()
    colours: Palette = ()

    def read(self, path: Path) -> np.ndarray:
        """Return a label file's values, uint8 (H, W); InputError if it cannot be read or has other colours."""
        if not self.colours:
            return read_label_values(path)
        pixels = read_label_colours(path)
        places = pd.Index(np.array(self.colours) @ RGB).get_indexer(pixels.ravel()).reshape(pixels.shape)
        if (places < 0).any():
            unknown, counts = np.unique(pixels[places < 0], return_counts=True)
            most = f"{rgb(unknown[counts.argmax()])} ({counts.max()} pixels)"
            raise InputError(
                f"{path}: {len(unknown)} colour(s) of no class, the first {most}; "
                "in classes.json, colors name those of the classes, ignore_colors those of void"
            )
        return np.minimum(places, len(self.values)).astype(np.uint8)

    def decode(self, path: Path, stored: np.ndarray) -> np.ndarray:
        """Return stored uint8 values as classes and 255; InputError names the file and values that mean nothing."""
        wrong = set(np.flatnonzero(np.bincount(stored.ravel())).tolist()).difference(self.values, self.void)
        if wrong:
            void = f" and {spans(self.void)} (void)" if self.void else ""
            raise InputError(f"{path}: label value(s) {spans(wrong)} out of range; allowed: {spans(self.values)}{void}")
        table = np.full(256, VOID, np.uint8)
        table[list(self.values)] = range(len(self.values))
        return table[stored]


class Pair(NamedTuple):
    """An image file and its label file, and what their names have in common."""

    name: str
    image: Path
    label: Path

    def check_same_size(self, image: Tensor, values: np.ndarray) -> None:
        """Raise an InputError that names both files unless image (3, H, W) and label values (H, W) agree in size."""
        if image.shape[1:] != values.shape:
            have = " and ".join("{} x {}".format(*shape) for shape in (image.shape[1:], values.shape))
            raise InputError(f"{self.image} and {self.label.name} differ in size: {have} (height x width)")


class SplitFiles(NamedTuple):
    """The files of a split: the images' folder, pairs, a line a file without a partner, what the label values mean."""

    images: Path
    pairs: list[Pair]
    problems: list[str]
    code: LabelCode


def match_pairs(
    images: Path,
    labels: Path,
    code: LabelCode,
    layout: str,
    *,
    image_ends: Sequence[str] = IMAGE_SUFFIXES,
    label_ends: Sequence[str] = LABEL_SUFFIXES,
    pattern: str = "*",
) -> SplitFiles:
    """Pair the files of two folders that have one name but for its end, sorted; no file is opened.

    Of the files that match ``pattern``, those with other ends and hidden ones do not count. InputError, which shows the
    expected ``layout``, if a folder is missing or has no such files.
    """
    problems: list[str] = []
    image_files = _by_name(images, image_ends, pattern, layout, problems)
    label_files = _by_name(labels, label_ends, pattern, layout, problems)
    if images == labels:
        image_files = {name: file for name, file in image_files.items() if file not in label_files.values()}
    pairs = [
        Pair(Path(name).name, file, label_files[name]) for name, file in image_files.items() if name in label_files
    ]
    problems += [
        f"image {file.name} has no label {name}{label_ends[0]}"
        for name, file in image_files.items()
        if name not in label_files
    ]
    problems += [f"label {file.name} has no image" for name, file in label_files.items() if name not in image_files]
    return SplitFiles(images, pairs, problems, code)


def _by_name(folder: Path, ends: Sequence[str], pattern: str, layout: str, problems: list[str]) -> dict[str, Path]:
    """Return files by their place in the folder without the end of their name; a name's second becomes a problem."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected {layout}")
    found: dict[str, Path] = {}
    for file in sorted(folder.glob(pattern)):
        end = next((end for end in ends if file.name.lower().endswith(end.lower())), "")
        name = str(file.relative_to(folder)).removesuffix(file.name[-len(end) :])
        if not end or file.name.startswith("."):
            continue
        if name in found:
            problems.append(f"{file.name} has the same name as {found[name].name}")
        else:
            found[name] = file
    if not found:
        raise InputError(f"{folder}: no files *{', *'.join(ends)}; expected {layout}")
    return found


@dataclass(frozen=True)
class ImageSet:
    """A set of images with labels in a folder, described before any of them is opened.

    Attributes:
        title: its name in messages.
        classes, palette: in the order of the class numbers.
        splits: the number of pairs that each split has in every copy; None where there is no such number.
        find: returns the files of a split; InputError if they are not there.
        unions: splits that are others together.
        problems: what is wrong with the description.
        about: where splits and labels were found, for a message; "" where all is as published.
    """

    title: str
    classes: tuple[str, ...]
    palette: Palette
    splits: Mapping[str | None, int | None]
    find: Callable[[str | None], SplitFiles]
    unions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: Sequence[str] = ()
    about: str = ""


class PairedFiles:
    """A split of a set as a data set: item i is (image uint8 (3, H, W) RGB, label uint8 (H, W)).

    Label values are 0..len(classes) - 1, or 255 for void. Images and labels are opened when an item is asked for; the
    InputError for a bad one names it.

    Args:
        images: the set.
        split: one of its splits or unions.
        size: (height, width) to resize every item to (image bilinear, label nearest); None leaves the files' sizes.

    Raises InputError for an unknown split, a missing folder, or an image or a label without a partner.
    """

    ignore_index = VOID

    def __init__(self, images: ImageSet, split: str | None, size: tuple[int, int] | None = None) -> None:
        if images.problems:
            raise InputError(images.problems[0])
        if split not in (*images.splits, *images.unions):
            raise one_of(f"{images.title} split", split, [*images.splits, *images.unions])
        self.pairs: list[Pair] = []
        for part in images.unions.get(split, (split,)):
            files = images.find(part)
            if files.problems:
                listed = "; ".join(files.problems[:NAMED]) + ("; ..." if len(files.problems) > NAMED else "")
                raise InputError(f"{files.images}: {len(files.problems)} file(s) do not pair up: {listed}")
            self.pairs += files.pairs
        if not self.pairs:
            raise InputError(f"{files.images}: no images for the split {split!r}; without splits 3 or more are needed")
        self.classes, self.palette, self._code, self.about = images.classes, images.palette, files.code, images.about
        self._size = check("size", size, tuple[Side, Side] | None)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return the name of item ``index``."""
        return self.pairs[index].name

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        image, values = read_image(pair.image), self._code.read(pair.label)
        pair.check_same_size(image, values)
        label = torch.from_numpy(self._code.decode(pair.label, values))
        return (image, label) if self._size is None else resize(image, label, self._size)

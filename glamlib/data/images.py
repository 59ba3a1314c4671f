"""Image and label files: how they are read, paired, and what the values of a label mean.

One's own data is such a folder, `FolderDataset`:

    ROOT/classes.json                     {"classes": [NAME, ...], "ignore_index": 0..255 or null,
                                           "palette": [[r, g, b], ...] (optional)}
    ROOT[/SPLIT]/images/NAME.(jpg|png|...)    any size, any mode; turned as its EXIF orientation says
    ROOT[/SPLIT]/labels/NAME.png              the same size, palettised or greyscale; values are class numbers

The label value `ignore_index` of the files becomes 255 when a label is read.
"""

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor

from glamlib.data.transforms import VOID, Byte, Side, resize
from glamlib.errors import Checked, InputError, Range, check, one_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
LAYOUT = "ROOT/classes.json, ROOT[/SPLIT]/images/NAME.(jpg|jpeg|png|...) and ROOT[/SPLIT]/labels/NAME.png"
# What ends a file, and what starts its data, by format: PIL reads some files without their end.
ENDS = {"PNG": (b"\0\0\0\0IEND\xaeB`\x82", b"IDAT"), **dict.fromkeys(["JPEG", "MPO"], (b"\xff\xd9", b"\xff\xda"))}
# What PIL raises depends on where a file is damaged; SyntaxError is its word for a broken PNG.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)
DAMAGE += (Image.DecompressionBombError,)
NAMED = 3  # how many of several bad files an error names; check_data names them all

Palette = tuple[tuple[int, int, int], ...]


def read_image(path: Path) -> Tensor:
    """Read an image file of any mode as uint8 RGB ``(3, H, W)``, turned as its EXIF orientation says.

    16-bit values are divided by 256, real values from 0 to 1 multiplied by 255. InputError names a file that is
    damaged, has several frames or values of unknown range.
    """
    image = _decode(path)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 65535:
            raise InputError(f"{path}: values from {low} to {high}; allowed: 0..255, 0..65535, or real values 0..1")
        if values.dtype.kind == "f" and high <= 1:
            values = np.round(values * 255)
        elif values.dtype == np.uint16 or high > 255:
            values = values // 256
        image = Image.fromarray(values.astype(np.uint8))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def read_label_values(path: Path) -> np.ndarray:
    """Read a label file's values as stored, uint8 ``(H, W)``; InputError if damaged, or not palettised or grey."""
    label = _decode(path)
    if label.mode not in ("P", "L"):
        raise InputError(f"{path}: a label image of mode {label.mode}; allowed: palettised (P) or 8-bit greyscale (L)")
    return np.array(label)


def _decode(path: Path) -> Image.Image:
    try:
        content = path.read_bytes()
        with Image.open(path) as image:
            end, data = ENDS.get(image.format, (b"", b""))
            if content.rfind(end) < content.rfind(data):
                raise ValueError("the file is cut off")
            image.verify()  # a PNG's checksums, which decoding ignores
        with Image.open(path) as image:
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a phone's photo, and copies
            image.load()
            image = ImageOps.exif_transpose(image)
    except DAMAGE as problem:
        raise InputError(f"{path}: cannot be read as an image ({problem})") from problem
    if frames > 1:
        raise InputError(f"{path}: {frames} frames; allowed: one image in a file")
    return image


@dataclass(frozen=True)
class LabelCode:
    """How the labels of a data set are stored."""

    meaning: Mapping[int, int]  # a class or 255 (void) for each stored value; others are wrong
    allowed: str  # the same in words

    @classmethod
    def plain(cls, num_classes: int, void: int | None) -> "LabelCode":
        """Return the code of labels that store class numbers and ``void``."""
        meaning = {value: value for value in range(num_classes)}
        if void is None:
            return cls(meaning, f"0..{num_classes - 1}")
        return cls(meaning | {void: VOID}, f"0..{num_classes - 1} and {void} (void)")

    def decode(self, path: Path, values: np.ndarray) -> np.ndarray:
        """Return stored uint8 ``values`` as classes and 255; InputError names the file and wrong values."""
        found = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        wrong = [str(value) for value in found if value not in self.meaning]
        if wrong:
            raise InputError(f"{path}: label value(s) {', '.join(wrong)} out of range; allowed: {self.allowed}")
        table = np.full(256, VOID, np.uint8)
        table[list(self.meaning)] = list(self.meaning.values())
        return table[values]


class Pair(NamedTuple):
    """An image file and its label file; ``name`` is the image's stem."""

    name: str
    image: Path
    label: Path

    def check_same_size(self, image: Tensor, values: np.ndarray) -> None:
        """Raise an InputError that names both files unless image (3, H, W) and label values (H, W) agree in size."""
        if image.shape[1:] != values.shape:
            have = " and ".join("{} x {}".format(*shape) for shape in (image.shape[1:], values.shape))
            raise InputError(f"{self.image} and {self.label.name} differ in size: {have} (height x width)")


class SplitFiles(NamedTuple):
    """The files of a split; ``problems`` has a line for each file without a partner."""

    images: Path
    pairs: list[Pair]
    problems: list[str]
    code: LabelCode

    def checked(self) -> list[Pair]:
        """Return the pairs; InputError counts the problems and names the first, if there are any."""
        if self.problems:
            more = "; ..." if len(self.problems) > NAMED else ""
            listed = "; ".join(self.problems[:NAMED])
            raise InputError(f"{self.images}: {len(self.problems)} file(s) do not pair up: {listed}{more}")
        return self.pairs


@dataclass(eq=False)
class PairedFiles:
    """A data set over files: item i is (image uint8 ``(3, H, W)`` RGB, label uint8 ``(H, W)`` of classes and 255).

    Items are resized to ``size`` = (height, width) if given. A file is opened when its item is asked for; InputError
    names a bad one.
    """

    ignore_index: ClassVar[int] = VOID

    pairs: Sequence[Pair]
    classes: tuple[str, ...]
    palette: Palette
    code: LabelCode
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.size = check("size", self.size, tuple[Side, Side] | None)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return the file stem of item ``index``."""
        return self.pairs[index].name

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        image, values = read_image(pair.image), read_label_values(pair.label)
        pair.check_same_size(image, values)
        label = torch.from_numpy(self.code.decode(pair.label, values))
        return (image, label) if self.size is None else resize(image, label, self.size)


@dataclass(frozen=True)
class ImageSet:
    """A published set, of which everybody has the same files."""

    title: str
    classes: tuple[str, ...]
    palette: Palette
    sizes: Mapping[str, int]  # pairs of each split
    find: Callable[[Path, str], SplitFiles]  # of a split below a folder; InputError if there are none
    missing: Callable[[str, list[Pair]], str] = lambda split, pairs: ""  # names what a split of these pairs lacks
    unions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # splits that are others together

    def open(self, root: str | PathLike[str], split: str, size: tuple[int, int] | None = None) -> PairedFiles:
        """Return a split; InputError if it is unknown, its folder is missing or a file has no partner."""
        if split not in self.sizes and split not in self.unions:
            raise one_of(f"{self.title} split", split, [*self.sizes, *self.unions])
        found = [self.find(Path(root), part) for part in self.unions.get(split, (split,))]
        pairs = [pair for files in found for pair in files.checked()]
        return PairedFiles(pairs, self.classes, self.palette, found[0].code, size)


class FolderDataset(PairedFiles):
    """One's own folder, in the layout at the top of this file; without ``split`` images/ and labels/ lie in ``root``.

    Raises InputError if a folder or classes.json is missing or malformed, or if a file has no partner.
    """

    def __init__(
        self, root: str | PathLike[str], split: str | None = None, size: tuple[int, int] | None = None
    ) -> None:
        root = Path(root)
        folder = root if split is None else root / split
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; expected {LAYOUT}")
        if not folder.is_dir():
            splits = ", ".join(list_splits(root)) or "none"
            raise InputError(f"{root}: no split {split!r}; there are: {splits}; expected {LAYOUT}")
        table = read_classes(root / "classes.json")
        code = LabelCode.plain(len(table.classes), table.ignore_index)
        files = match_pairs(folder / "images", folder / "labels", code)._replace(images=folder)
        super().__init__(files.checked(), table.classes, table.palette, code, size)


def list_splits(root: Path) -> list[str]:
    """Return the sorted names of the sub-folders that hold images/ or labels/."""
    return sorted(f.name for f in root.iterdir() if (f / "images").is_dir() or (f / "labels").is_dir())


@dataclass(frozen=True)
class ClassTable(Checked):
    """What a classes.json says; the palette is PASCAL VOC's unless given."""

    role: ClassVar[str] = "entry"

    classes: tuple[str, ...]
    ignore_index: Annotated[int, Range(1, 255)] | None = None
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.classes)
        if count > VOID or not all(self.classes) or len(set(self.classes)) < count:
            raise InputError(f"entry classes={list(self.classes)}: must be 1 to {VOID} different names")
        if self.ignore_index is not None and self.ignore_index < count:
            raise InputError(f"entry ignore_index={self.ignore_index}: must be null or from {count} to 255, no class")
        palette = tuple(map(voc_colour, range(count))) if self.palette is None else self.palette
        # One colour more than classes is the void's, as in the files of the SegNet tutorial's CamVid.
        if len(palette) not in (count, count + 1):
            raise InputError(f"entry palette: has {len(palette)} colours; must be {count}, one a class")
        object.__setattr__(self, "palette", palette[:count])


def read_classes(path: Path) -> ClassTable:
    """Read a classes.json, whose other entries are ignored; InputError if the file is missing or malformed."""
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {LAYOUT}") from None
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as JSON ({problem})") from problem
    if not isinstance(table, dict):
        raise InputError(f'{path}: must be {{"classes": [...], "ignore_index": number or null, "palette": [...]}}')
    try:
        return ClassTable.from_dict({item.name: table[item.name] for item in fields(ClassTable) if item.name in table})
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def read_class_table(name: str) -> tuple[tuple[str, ...], Palette, pd.DataFrame]:
    """Return the classes and colours of a CSV file beside this one, and the whole table."""
    table = pd.read_csv(Path(__file__).with_name(name))
    return tuple(table["name"]), tuple(table[["red", "green", "blue"]].itertuples(index=False, name=None)), table


def voc_colour(value: int) -> tuple[int, int, int]:
    """Return the PASCAL VOC colour of a label value: its bits go to r, g, b in turn, the lowest to the top bits."""
    return tuple(sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))


def match_pairs(images: Path, labels: Path, code: LabelCode, layout: str = LAYOUT) -> SplitFiles:
    """Pair the files of two folders by their stems; hidden files and those with other suffixes do not count.

    Raises InputError, which names the ``layout``, if a folder is missing or holds no image.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected {layout}")
    label_files = {file.stem: file for file in _files(labels, (".png",))}
    pairs: dict[str, Pair] = {}
    problems = []
    for file in _files(images, IMAGE_SUFFIXES):
        if file.stem in pairs:
            problems.append(f"image {file.name} has the same name as {pairs[file.stem].image.name}")
        elif file.stem in label_files:
            pairs[file.stem] = Pair(file.stem, file, label_files[file.stem])
        else:
            problems.append(f"image {file.name} has no label {file.stem}.png")
    problems += [f"label {file.name} has no image" for stem, file in label_files.items() if stem not in pairs]
    if not pairs and not problems:
        raise InputError(f"{images}: no images; expected {layout}")
    return SplitFiles(images, list(pairs.values()), problems, code)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))

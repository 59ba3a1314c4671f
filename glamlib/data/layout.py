"""Folders of images or volumes with labels: which files belong together, which split they are in, what values mean."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamlib.data.transforms import VOID
from glamlib.errors import InputError, one_of

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LISTS = (".", "splits", "ImageSets/Segmentation")  # where train.txt may lie
HELD_OUT, SEED = 0.15, 0  # the share of "train" that becomes a split which is not there
NAMED = 3  # how many of several problems an error names; check_data names them all

Palette = tuple[tuple[int, int, int], ...]
nfc = partial(unicodedata.normalize, "NFC")  # "ä" is one letter in some systems' names, two in others'


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn all errors of reading ``what`` from a file, whose types depend on where damage lies, into an InputError."""
    try:
        yield
    except InputError as problem:
        raise problem if str(path) in str(problem) else InputError(f"{path}: {problem}") from None
    except Exception as problem:
        reason = repr(problem) if isinstance(problem, KeyError) else str(problem).partition(" <_io")[0]
        reason = " ".join(reason.split()) or type(problem).__name__
        raise InputError(f"{path}: cannot be read as {what} ({reason})") from problem


def by(sides: Iterable[float]) -> str:
    """Return sides in words, "2 x 3 x 4"."""
    return " x ".join(f"{side:.3g}" if isinstance(side, float) else str(side) for side in sides)


def spans(numbers: Iterable[int]) -> str:
    """Return whole numbers in short, for example "0..3, 7"."""
    numbers = np.array(sorted(numbers), int)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1) if len(numbers) else ()
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def sided(names: Iterable[str]) -> bool:
    """Tell whether classes have sides: one is "left lung", "LungR" or "rh-cortex", or "lkid" is there beside "rkid".

    A false alarm, such as the vertebra "L 5", only costs the mirror in training.
    """
    words = {re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower() for name in names}
    word = re.compile(r"(?<![^\W\d])(left|right|[lr][ht]?)(?![^\W\d])|\b(left|right)")
    pairs = (f"{name[:at]}r{name[at + 1 :]}" for name in words for at, letter in enumerate(name) if letter == "l")
    return any(map(word.search, words)) or not words.isdisjoint(pairs)


def voc_palette(count: int) -> Palette:
    """Return PASCAL VOC's colours of 0..count - 1: a value's bits go to r, g, b in turn, the lowest to the top bits."""
    return tuple(
        tuple(sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
        for value in range(count)
    )


@dataclass(frozen=True)
class Labels:
    """What label files hold."""

    classes: tuple[str, ...]  # in the order of class numbers; of volumes the background first
    numbers: Mapping[int, int] = field(hash=False)  # the class number of every value, `VOID` for what is ignored
    sided: bool = False  # whether left and right differ
    coloured: bool = False  # whether values are colours, each 65536 r + 256 g + b
    palette: Palette = ()  # a colour for each class; those of PASCAL VOC unless given

    @property
    def values(self) -> tuple[int, ...]:
        """The value of each class in label files; class numbers where a structure is a merger of several values."""
        values = {number: value for value, number in reversed(self.numbers.items()) if number != VOID}
        merged = sum(0 < number < VOID for number in self.numbers.values()) > len(values) - 1
        return tuple(range(len(self.classes)) if merged else (values[n] for n in range(len(self.classes))))

    @property
    def allowed(self) -> str:
        """The values in words."""
        if self.coloured:
            return f"{len(self.numbers)} colours (colors and ignore_colors of classes.json)"
        void = {value for value, number in self.numbers.items() if number == VOID}
        return spans(self.numbers.keys() - void) + (f" and {spans(void)} (void)" if void else "")

    def decode(self, path: Path, values: np.ndarray) -> np.ndarray:
        """Return class numbers, uint8, of a file's ``values``; InputError names the file and what is not known.

        Real numbers within 0.001 of an integer are that integer: tools that resample labels write 0.99999994.
        """
        found = np.unique(values)
        near = [(value, round(value)) for value in found.tolist()]
        numbers = [self.numbers.get(n) if abs(value - n) <= 1e-3 else None for value, n in near]
        unknown = [value for (value, _), number in zip(near, numbers, strict=True) if number is None]
        if unknown:
            kind = "colour" if self.coloured else "value"
            some = [f"{list(n.to_bytes(3))}" if self.coloured else f"{n:.9g}" for n in unknown[:5]]
            have = ", ".join(some) + ", ..." * (len(unknown) > 5)
            raise InputError(f"{path}: unknown label {kind}(s) {have}; allowed: {self.allowed}")
        return np.array(numbers, np.uint8)[np.searchsorted(found, values)]


class Item(NamedTuple):
    """An image, in one file or in one for each channel, and its label."""

    name: str
    images: tuple[Path, ...]
    label: Path


class Split(NamedTuple):
    """Items, a line for each thing that is wrong with them as a whole, and where they are, in words."""

    items: list[Item]
    problems: list[str]
    where: str = ""


Catcher = Callable[[], AbstractContextManager]  # around each step of reading an item


@dataclass
class Layout:
    """What lies in a folder, before any image or label is opened."""

    title: str  # the data set's name in messages
    labels: Labels
    splits: dict[str, Split]
    # Of an `Item` and, to catch errors, a `Catcher`: image, class numbers, spacing (of volumes); None for what failed
    read: Callable[..., tuple]
    unions: Mapping[str | None, Sequence[str]] = field(default_factory=dict)  # splits that are others together
    subsets: Mapping[str, Split] = field(default_factory=dict)  # parts of splits
    problems: Sequence[str] = ()  # with the whole: it can be checked, but not loaded
    incomplete: Sequence[str] = ()  # what is missing of a published set
    about: str = ""  # what was taken for what, in a line; "" where all is as published
    channels: tuple[str, ...] = ()  # names of those of volumes

    def chosen(self, split: str | None) -> list[Item]:
        """Return the items of a split or union; InputError for an unknown, an empty or a faulty one."""
        if self.problems:
            raise InputError(self.problems[0])
        splits = self.splits | self.subsets
        if split not in (*splits, *self.unions):
            raise one_of(f"{self.title} split", split, filter(None, (*splits, *self.unions)))
        parts = [splits[part] for part in self.unions.get(split, (split,))]
        if problems := list(dict.fromkeys(chain(*(part.problems for part in parts)))):
            more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise InputError("; ".join(problems[:NAMED]) + more)
        if not any(part.items for part in parts):
            needed = "needed: a list that names some, or at least 3 labelled images to hold out splits"
            raise InputError(f"the {self.title} split {split!r} is empty ({parts[0].where}); {needed}")
        return [*chain(*(part.items for part in parts))]


class FileItems:
    """A split of a `Layout` as a data set; files are opened when an item is asked for, whose InputError names them."""

    ignore_index = VOID

    def __init__(self, layout: Layout, split: str | None) -> None:
        self.items = layout.chosen(split)
        self.classes, self.about, self.read = layout.labels.classes, layout.about, layout.read
        self.palette = layout.labels.palette or voc_palette(len(self.classes))

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """Return the name of item ``index``."""
        return self.items[index].name

    def places(self, root: str) -> tuple[str, ...]:
        """Return where below ``root`` the items' images lie."""
        return tuple(nfc(item.images[0].relative_to(root).as_posix()) for item in self.items)


class Files(NamedTuple):
    """Files NAME + END in a folder; the first group of the pattern ``name`` is what an image's and a label's share."""

    folder: Path
    ends: Sequence[str]
    name: str = "(.+)"

    def at(self, depth: int) -> list[tuple[Path, str]]:
        """Return the files in the folder (depth 0), or those one folder deeper (1), with their names (NFC)."""
        pattern = re.compile(nfc(f"{self.name}(?:{'|'.join(map(re.escape, self.ends))})"), re.IGNORECASE | re.DOTALL)
        files = sorted(self.folder.glob("[!.]*/" * depth + "[!.]*"))
        matches = ((file, pattern.fullmatch(nfc(str(file.relative_to(self.folder))))) for file in files)
        return [(file, match[1]) for file, match in matches if match]

    def left_out(self, other: Path) -> list[Path]:
        """Return the files that `find` passes over because they lie deeper, but for those in the folder ``other``."""
        return [path for path, _ in self.at(1) if other not in path.parents] if self.at(0) else []

    def find(self, problems: list[str]) -> dict[str, Path]:
        """Return files by name, or those one folder deeper; a name's second file, or none, is a problem."""
        found: dict[str, Path] = {}
        for path, name in self.at(0) or self.at(1):
            if found.setdefault(name, path) != path:
                problems.append(f"{path} has the same name as {found[name].name}")
        if not found:
            problems.append(f"{self.folder}: no files *{', *'.join(self.ends)}, here or one folder deeper")
        return found


def pair(images: Files, labels: Files, channels: int = 1, told: Mapping[str, str] | None = None) -> Split:
    """Return the images and labels of one name, or of those that ``told`` has; what has no partner becomes a problem.

    Instead of one, there may be images NAME_0000, NAME_0001, ... of ``channels``, as nnU-Net has them.
    """
    items, problems = [], []
    image_files, label_files = (files.find(problems) for files in (images, labels))
    if images.folder == labels.folder:
        image_files = {name: path for name, path in image_files.items() if path not in set(label_files.values())}
    for name, label in label_files.items() if image_files else ():
        name = (told or {}).get(name, name)
        names = [name] if name in image_files else [f"{name}_{number:04}" for number in range(channels)]
        found = tuple(image_files.pop(each) for each in names if each in image_files)
        if len(found) == len(names):
            items.append(Item(Path(name).name, found, label))
        else:
            problems.append(f"{label} has {f'{len(found)} of {channels} images' if found else 'no image'}")
    problems += [f"{path} has no label" for path in image_files.values() if label_files]
    return Split(items, problems, str(images.folder.name))


def listed(root: Path, pool: Split, names: Mapping[str, Sequence[str]] | None = None) -> dict[str, Split]:
    """Return the splits that lists tell: SPLIT.txt, else the first fold of nnU-Net's splits_final.json, else ``names``.

    "train" is what no other split has, unless it is told. A name without an item, or in two lists, is a problem. What
    did not pair up is one only where the lists depend on it.
    """
    lists = {}
    for split, aliases in SPLITS.items():
        paths = [path for name in aliases for place in LISTS if (path := root / place / f"{name}.txt").is_file()]
        if paths:
            with reading(paths[0], "text"):
                lines = nfc(paths[0].read_text(encoding="utf-8-sig")).splitlines()
            lists[split] = paths[0].name, [line.strip() for line in lines if line.strip()]
    folds = root / "splits_final.json"
    if not lists and folds.is_file():
        with reading(folds, "nnU-Net's folds of train and val"):
            fold = json.loads(folds.read_text())[0]
            lists = {one: (f"{folds.name}'s first fold", [nfc(str(n)) for n in fold[one]]) for one in ("train", "val")}
    depends = pool.problems if not lists else []
    lists = lists or {split: (f"the published {split} split", each) for split, each in (names or {}).items()}
    if lists and len({item.name for item in pool.items}) < len(pool.items):
        raise InputError(f"{root}: lists cannot tell files of one name in several folders apart")
    files = [(nfc(path.name), item) for item in pool.items for path in (*item.images, item.label)]
    keys = {key: item for name, item in files for key in (Path(name).stem, name)}
    keys |= {item.name: item for item in pool.items}
    found, taken = {}, {}
    for split, (where, lines) in lists.items():
        items, problems = [], [*depends]
        for line in lines:
            item = keys.get(Path(line).name) or keys.get(Path(line.split()[0]).name)  # it may end with the label's name
            if item is None or item.name in taken:
                why = "has no image and label" if item is None else f"is in {taken[item.name]}, too"
                problems.append(f"{root}: {line} in {where} {why}")
            else:
                taken[item.name] = where
                items.append(item)
        found[split] = Split(items, problems, f"{pool.where} by {where}")
    if lists and "train" not in found:
        rest = [item for item in pool.items if item.name not in taken]
        found["train"] = pool._replace(items=rest, where=f"the rest of {pool.where}")
    return found


def three_splits(found: dict[str, Split]) -> tuple[dict[str, Split], str]:
    """Return train, val and test, and a line that says where they are.

    Where two are found, the other is "test", which is reported. What is not found is a fixed draw of 15 % of "train".
    """
    found = dict(found)
    if found.keys() == {"train", "val"}:
        found["test"] = found.pop("val")  # the one that is reported
    train = found.get("train", Split([], [], "not found"))  # data for `evaluate` alone
    lacking = [split for split in SPLITS if split not in (*found, "train")]
    share = max(1, round(HELD_OUT * len(train.items)))
    order = np.random.default_rng(SEED).permutation(len(train.items))
    for split, part in zip([*lacking, "train"], np.split(order, share * np.arange(1, len(lacking) + 1)), strict=True):
        where = train.where if split == "train" else "held out of train"
        found[split] = Split([train.items[index] for index in sorted(part)], train.problems, where)
    splits = {split: found[split] for split in SPLITS}
    return splits, "; ".join(f"{name}: {len(split.items)}, {split.where}" for name, split in splits.items())

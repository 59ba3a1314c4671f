"""One's own images: a folder in one of the usual layouts, and a classes.json that says what its labels mean.

    ROOT/classes.json           {"classes": [NAME, ...]} and other entries of `ClassTable`
    ROOT/images, ROOT/labels    or for each split: SPLIT/images and SPLIT/labels, images/SPLIT and labels/SPLIT, SPLIT
                                and SPLIT_labels; or the same, one folder deeper; other names: `LAYOUT`
    ROOT[/splits]/SPLIT.txt     in the first layout, a name a line, with or without suffix

Images have any size and mode. Labels have the same size and are class numbers, greyscale or palettised; masks of 0 and
255 (two classes, no ignore_index); or ``colors``. There are always the splits "train", "val" and "test", by
`three_splits`, and "all" or None for all images. Images that belong together, such as a video's, need lists.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from itertools import product, zip_longest
from os.path import commonprefix
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from glamlib.data.images import IMAGE_SUFFIXES, LABEL_SUFFIXES, read_label, read_pair
from glamlib.data.layout import SPLITS, Files, Labels, Layout, Split, listed, pair, reading, sided, spans, three_splits
from glamlib.data.transforms import VOID, Byte
from glamlib.errors import Checked, InputError, Range
from glamlib.files import write_whole

IMAGE_FOLDERS = ("images", "imgs", "img_dir", "JPEGImages")
LABEL_FOLDERS = ("labels", "masks", "annotations", "ann_dir", "SegmentationClass")
BESIDE = ("_labels", "_masks", "annot")  # train/ and train_labels/
LAYOUT = "classes.json, [SPLIT/]images/NAME.(jpg|png|...) and [SPLIT/]labels/NAME.(png|...); "
LAYOUT += f"images may be {', '.join(IMAGE_FOLDERS)}; labels {', '.join(LABEL_FOLDERS)}; or the entry folders"
SOFT = 200  # values, beyond which labels are taken for masks that were smoothed, or saved as JPEG
RARE = 1e-4  # of all pixels: a colour below may be a brush's edge

Colour = tuple[Byte, Byte, Byte]
Places = Iterable[tuple[str, str]]  # folders of images and of labels, in which SPLIT stands for the split's name


@dataclass(frozen=True)
class ClassTable(Checked):
    """What a classes.json says. Without a palette the classes have their ``colors``, or those of PASCAL VOC."""

    role: ClassVar[str] = "entry"

    classes: tuple[str, ...]
    ignore_index: Annotated[int, Range(1, 255)] | None = None  # the void of class numbers; becomes 255
    palette: tuple[Colour, ...] | None = None
    colors: tuple[Colour, ...] | None = None  # of the classes in label files; transparency is ignored
    ignore_colors: tuple[Colour, ...] | None = None  # void
    image_suffix: str = ""  # ends of names before ".png"; with a label_suffix, both may lie in one folder
    label_suffix: str = ""
    folders: tuple[str, str] | None = None  # of images and of labels, where they have other names

    def __post_init__(self) -> None:
        super().__post_init__()
        count, void = len(self.classes), self.ignore_colors or ()
        if count > VOID or not all(self.classes) or len(set(self.classes)) < count:
            raise InputError(f"entry classes={list(self.classes)}: must be 1 to {VOID} different names")
        if self.ignore_index is not None and (self.ignore_index < count or self.colors):
            allowed = "null, because of colors" if self.colors else f"null or from {count} to 255, no class"
            raise InputError(f"entry ignore_index={self.ignore_index}: must be {allowed}")
        if (self.colors or void) and len({*(self.colors or ()), *void}) - len(void) != count:
            raise InputError(f"entry colors: must be {count} different ones, one a class, none of ignore_colors")
        # One colour more than classes is the void's, as in the files of the SegNet tutorial's CamVid.
        if self.palette and len(self.palette) not in (count, count + 1):
            raise InputError(f"entry palette: has {len(self.palette)} colours; must be {count}, one a class")

    @property
    def places(self) -> Places:
        """Where images and labels may lie."""
        kinds = [self.folders] if self.folders else [*product(IMAGE_FOLDERS, LABEL_FOLDERS)]
        places = [(f"SPLIT/{images}", f"SPLIT/{labels}") for images, labels in kinds]
        places += [(f"{images}/SPLIT", f"{labels}/SPLIT") for images, labels in kinds]
        return places + [("SPLIT", f"SPLIT{end}") for end in BESIDE]

    def labels(self, files: Sequence[Path]) -> Labels:
        """Return what label values mean. Masks of 0 and 255 are told by the first file that is not all 0."""
        count = len(self.classes)
        numbers = dict(enumerate(range(count)))
        if self.colors:
            colours = map(int.from_bytes, self.colors + (self.ignore_colors or ()))
            numbers = dict(zip_longest(colours, range(count), fillvalue=VOID))
        elif self.ignore_index is not None:
            numbers[self.ignore_index] = VOID
        elif count == 2:
            for file in files:
                with suppress(InputError):  # named when it is used
                    if found := set(np.unique(read_label(file)).tolist()) - {0}:
                        numbers = {0: 0, VOID: 1} if found == {VOID} else numbers
                        break
        palette = (self.palette or self.colors or ())[:count]
        return Labels(self.classes, numbers, sided(self.classes), bool(self.colors), palette)


def read_classes(path: Path) -> ClassTable:
    """Read a classes.json, whose other entries are ignored; InputError if the file is missing or malformed."""
    if not path.exists():
        raise InputError(f"{path}: no such file; `check-data folder {path.parent} --suggest` writes one")
    with reading(path, "a table of classes"):
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        return ClassTable.from_dict({item.name: table[item.name] for item in fields(ClassTable) if item.name in table})


def folders_of(root: Path, names: Sequence[str], places: Places, label_suffix: str = "") -> tuple[Path, Path] | None:
    """Return the folders of images and labels of the split of these names ("": the root); InputError for several."""
    parts = [[part.replace("SPLIT", name).lstrip("/") for part in each] for name in names for each in places]
    paths = dict.fromkeys((root / images, root / labels) for images, labels in parts)
    paths = [(images, labels) for images, labels in paths if images.is_dir() and labels.is_dir()]
    if not paths and label_suffix:
        paths = [(root / name,) * 2 for name in names if any((root / name).glob(f"*{label_suffix}.*"))]
    if len(paths) > 1:
        have = "; ".join(f"{images} and {labels}" for images, labels in paths)
        raise InputError(f"{root}: images and labels in several places, {have}; name one in folders of classes.json")
    return paths[0] if paths else None


def find_pairs(
    root: Path, names: Sequence[str], places: Places, image_suffix: str = "", label_suffix: str = ""
) -> Split | None:
    """Return the images and labels in the folders of `folders_of`, or one folder deeper; None if there are none."""
    folders = folders_of(root, names, places, label_suffix)
    if folders is None:
        return None
    suffixes = image_suffix, label_suffix
    images, labels = (
        Files(path, [f"{suffix}{end}" for end in ends])
        for path, suffix, ends in zip(folders, suffixes, (IMAGE_SUFFIXES, LABEL_SUFFIXES), strict=True)
    )
    where = " and ".join(f"{path.relative_to(root)}/*{suffix}" for path, suffix in zip(folders, suffixes, strict=True))
    if more := images.left_out(labels.folder):
        where += f" ({len(more)} in sub-folders such as {more[0].parent.name}/ left out)"
    return pair(images, labels)._replace(where=where)


def folder(root: Path) -> Layout:
    """Describe one's own folder, and what is wrong with it; without a usable classes.json any label value will do."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {LAYOUT}")
    table, labels, splits, about, problems = ClassTable(("?",)), Labels((), dict(enumerate(range(256)))), {}, "", []
    try:
        table = read_classes(root / "classes.json")
    except InputError as problem:
        problems.append(str(problem))
    try:
        splits, about = _own_splits(root, table)
    except InputError as problem:
        problems.append(str(problem))
    if not problems:
        labels = table.labels([item.label for split in splits.values() for item in split.items])
        about += f"; labels: {labels.allowed}" + "; left and right differ" * labels.sided
    unions = {"all": tuple(splits), None: tuple(splits)}
    return Layout("folder", labels, splits, partial(read_pair, labels), unions, problems=problems, about=about)


def _own_splits(root: Path, table: ClassTable) -> tuple[dict[str, Split], str]:
    suffixes = table.image_suffix, table.label_suffix
    found = {split: find_pairs(root, names, table.places, *suffixes) for split, names in SPLITS.items()}
    found = {split: pairs for split, pairs in found.items() if pairs}
    if not found:
        whole = find_pairs(root, [""], table.places, *suffixes)
        if not whole:
            raise InputError(f"{root}: no images with labels; expected {LAYOUT}, or volumes in imagesTr/ and labelsTr/")
        found = listed(root, whole) or {"train": whole}
    return three_splits(found)


def suggest_classes(root: Path) -> str:
    """Write a classes.json for the labels of a folder without one, and return a line that says what was found.

    Classes are numbers if half of those up to the largest occur, else colours; rare colours become void. InputError for
    a classes.json that is there, labels that cannot be read, and too many colours.
    """
    path, table = root / "classes.json", ClassTable(("?",))
    if path.exists():
        raise InputError(f"{path}: is there already, and is not overwritten")
    folders = next(filter(None, (folders_of(root, names, table.places) for names in (*SPLITS.values(), [""]))), ())
    stems = [{file.stem for file in each.glob("[!.]*.*")} for each in folders]
    if stems and not stems[0] & stems[1]:
        table = ClassTable(("?",), image_suffix=_ending(stems[0]), label_suffix=_ending(stems[1]))
    splits = _own_splits(root, table)[0].values()
    labels, why = (
        [item.label for split in splits for item in split.items],
        [each for s in splits for each in s.problems],
    )
    if not labels:
        pairing = "an image and its label must have one name, but for an ending that all images or all labels have"
        raise InputError(f"{root}: nothing pairs up; {why[0]}; {pairing}")
    numbers, colours, why = Counter(), Counter(), []
    for label, (counter, coloured) in product(labels, ((colours, True), (numbers, False))):
        try:
            values, counts = np.unique(read_label(label, coloured), return_counts=True)
            counter.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        except InputError as problem:
            why.append(str(problem))
    if not colours or len(numbers) > SOFT:
        reason = f"have {len(numbers)} values, as masks with soft edges" if colours else f"cannot be read; {why[0]}"
        raise InputError(f"{root}: its {len(labels)} labels {reason}; allowed: one value or colour a class")
    entries = {name: getattr(table, name) for name in ("image_suffix", "label_suffix") if getattr(table, name)}
    present, count, said = sorted(numbers.keys() - {VOID}), 2, f"the values {spans(numbers)}"
    if numbers.total() == colours.total() and present and len(present) > max(present) / 2:
        if present != [0] or not numbers[VOID]:  # else masks of 0 and 255
            count = max(present) + 1
            entries |= {"ignore_index": VOID} if numbers[VOID] else {}
    else:
        common = [list(key.to_bytes(3)) for key, pixels in sorted(colours.items()) if pixels >= RARE * colours.total()]
        rare = [list(key.to_bytes(3)) for key, pixels in colours.most_common() if pixels < RARE * colours.total()]
        if len(common) > VOID:
            raise InputError(f"{root}: its labels have {len(common)} colours; allowed: one a class, at most {VOID}")
        entries |= {"colors": common} | ({"ignore_colors": rare} if rare else {})
        count, said = len(common), f"{len(common)} colours"
        if rare:
            said += f" and {len(rare)} rare ones, taken for void: {', '.join(map(str, rare[:3]))}"
    entries = {"classes": [f"class_{number}" for number in range(count)]} | entries
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items())
    write_whole(path, f"{{\n{lines}\n}}\n")
    return f"{path}: written for {said}; give the classes their names"


def _ending(stems: set[str]) -> str:
    """Return what all names end in, from its first "_" or "-" on."""
    end = commonprefix([stem[::-1] for stem in stems])[::-1]  # noqa: RUF071  (of names, not of paths)
    return end[min((end.index(sign) for sign in "_-" if sign in end), default=len(end)) :]

"""One's own images: a folder in one of the usual layouts, and a classes.json that says what its labels mean.

    ROOT/classes.json               {"classes": [NAME, ...]} and other entries of `ClassTable`
    ROOT/images, ROOT/labels        or for each split: SPLIT/images and SPLIT/labels, images/SPLIT and labels/SPLIT,
                                    SPLIT and SPLIT_labels; or the same, one folder deeper; other names: `LAYOUT`
    ROOT[/splits]/(train|val|test).txt  in the first layout, a name a line, with or without suffix

Images have any size and mode, labels the same size. They are class numbers, greyscale or palettised; or masks of 0 and
255 (two classes, no ignore_index); or ``colors``. Any other value or colour is an error.

There are always three splits, "train", "val" and "test", and "all" or None for all images. Where two are found, the
other one is "test", the one that is reported, and "val" is held out of "train"; where none is, both are: 15 % of the
names each, drawn by a fixed seed. Images that belong together, such as frames of one video, need lists.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from os.path import commonprefix
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from glamlib.data.images import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    NAMED,
    ImageSet,
    LabelCode,
    SplitFiles,
    match_pairs,
    read_label_colours,
    read_label_values,
    rgb,
    spans,
    voc_colour,
)
from glamlib.data.transforms import VOID, Byte
from glamlib.errors import Checked, InputError, Range
from glamlib.files import write_whole

IMAGE_FOLDERS = ("images", "imgs", "img_dir", "JPEGImages")
LABEL_FOLDERS = ("labels", "masks", "annotations", "ann_dir", "SegmentationClass")
BESIDE = ("_labels", "_masks", "annot")  # train/ and train_labels/
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LISTS = (".", "splits", "ImageSets/Segmentation")
LAYOUT = (
    "classes.json, [SPLIT/]images/NAME.(jpg|png|...) and [SPLIT/]labels/NAME.(png|...); "
    f"images may be {', '.join(IMAGE_FOLDERS)}; labels {', '.join(LABEL_FOLDERS)}; or the entry folders"
)
HELD_OUT, SEED = 0.15, 0
RARE = 1e-4  # of all pixels: a colour below may be a brush's edge

Colour = tuple[Byte, Byte, Byte]


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
        palette = self.palette or self.colors or tuple(map(voc_colour, range(count)))
        # One colour more than classes is the void's, as in the files of the SegNet tutorial's CamVid.
        if len(palette) not in (count, count + 1):
            raise InputError(f"entry palette: has {len(palette)} colours; must be {count}, one a class")
        object.__setattr__(self, "palette", palette[:count])

    def code(self, labels: Sequence[Path]) -> LabelCode:
        """Return what label values mean. Masks of 0 and 255 are told by the first file that is not all 0."""
        numbers, void = tuple(range(len(self.classes))), self.ignore_colors or ()
        if self.colors:
            return LabelCode(numbers, (len(numbers),) if void else (), self.colors + void)
        if self.ignore_index is None and len(numbers) == 2:
            for label in labels:
                try:
                    found = set(np.unique(read_label_values(label)).tolist())
                except InputError:  # named when it is used
                    continue
                if found != {0}:
                    return LabelCode((0, VOID) if found <= {0, VOID} else numbers)
        return LabelCode(numbers, () if self.ignore_index is None else (self.ignore_index,))


def read_classes(path: Path) -> ClassTable:
    """Read a classes.json, whose other entries are ignored; InputError if the file is missing or malformed."""
    known = [item.name for item in fields(ClassTable)]
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `check-data folder {path.parent} --suggest` writes one") from None
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as JSON ({problem})") from problem
    if not isinstance(table, dict):
        raise InputError(f"{path}: must be {{NAME: VALUE, ...}} of {', '.join(known)}")
    try:
        return ClassTable.from_dict({name: value for name, value in table.items() if name in known})
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def folder(root: Path) -> ImageSet:
    """Describe one's own folder; what is wrong with it is among the description's problems.

    Without a usable classes.json there are no classes, and every label value is allowed.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {LAYOUT}")
    table, classes, palette, found, about, problems = ClassTable(("?",)), (), (), {}, "", []
    try:
        table = read_classes(root / "classes.json")
        classes, palette = table.classes, table.palette
    except InputError as problem:
        problems.append(str(problem))
    try:
        found, about = _splits(root, table)
    except (InputError, OSError) as problem:  # also lists that may not be read
        problems.append(str(problem))
    code = LabelCode(tuple(range(256)))
    if classes and found:
        code = table.code([pair.label for files in found.values() for pair in files.pairs])
        coding = f"{len(code.colours)} colours" if code.colours else f"{spans(code.values)}, void {spans(code.void)}"
        about += f"; labels: {coding}"
    found = {split: files._replace(code=code) for split, files in found.items()}
    unions = {"all": tuple(found), None: tuple(found)}
    return ImageSet("folder", classes, palette, dict.fromkeys(found), found.get, unions, problems, about)


def _splits(root: Path, table: ClassTable) -> tuple[dict[str, SplitFiles], str]:
    """Return the files of "train", "val" and "test", and a line that says where each was found."""
    places = {split: _place(root, names, table) for split, names in SPLITS.items()}
    found = {split: _pairs(root, place, table) for split, place in places.items() if place}
    if not found:
        place = _place(root, ("",), table)
        if not place:
            raise InputError(f"{root}: no images with labels; expected {LAYOUT}, or volumes in imagesTr/ and labelsTr/")
        whole = _pairs(root, place, table)
        found = _listed(root, *whole) or {"train": whole}
    if "train" not in found:  # data for `evaluate` alone
        found["train"] = SplitFiles(root, [], [], LabelCode(())), "not found"
    elif "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    files, where = found["train"]
    lacking = [split for split in SPLITS if split not in found]
    share = max(1, round(HELD_OUT * len(files.pairs)))
    order = np.random.default_rng(SEED).permutation(len(files.pairs))
    for split, part in zip([*lacking, "train"], np.split(order, share * np.arange(1, len(lacking) + 1)), strict=True):
        chosen = files._replace(pairs=[files.pairs[index] for index in sorted(part)])
        found[split] = (chosen, where) if split == "train" else (chosen._replace(problems=[]), "held out of train")
    about = [f"{split}: {len(found[split][0].pairs)}, {found[split][1]}" for split in SPLITS]
    return {split: found[split][0] for split in SPLITS}, "; ".join(about)


def _place(root: Path, names: Sequence[str], table: ClassTable) -> tuple[Path, Path] | None:
    """Return the folders of images and labels of the split of one of these names, "" for the root itself."""
    kinds = [table.folders] if table.folders else [*product(IMAGE_FOLDERS, LABEL_FOLDERS)]
    places = [(f"{name}/{images}", f"{name}/{labels}") for name in names for images, labels in kinds]
    places += [(f"{images}/{name}", f"{labels}/{name}") for name in names if name for images, labels in kinds]
    places += [(name, f"{name}{end}") for name in names if name for end in BESIDE]
    paths = [(root / images.lstrip("/"), root / labels.lstrip("/")) for images, labels in places]
    paths = [(images, labels) for images, labels in paths if images.is_dir() and labels.is_dir()]
    if not paths and table.label_suffix:
        paths = [(root / name,) * 2 for name in names if any((root / name).glob(f"*{table.label_suffix}.*"))]
    if len(paths) > 1:
        listed = "; ".join(f"{images} and {labels}" for images, labels in paths)
        raise InputError(f"{root}: images and labels in several places, {listed}; choose by folders in classes.json")
    return paths[0] if paths else None


def _pairs(root: Path, place: tuple[Path, Path], table: ClassTable) -> tuple[SplitFiles, str]:
    """Return the pairs of two folders, and where they are."""
    files = match_pairs(
        *place,
        LabelCode(()),
        LAYOUT,
        image_ends=[f"{table.image_suffix}{end}" for end in IMAGE_SUFFIXES],
        label_ends=[f"{table.label_suffix}{end}" for end in LABEL_SUFFIXES],
        pattern="*" if any(file.is_file() for file in place[0].glob("*.*")) else "*/*",
    )
    named = zip(place, (table.image_suffix, table.label_suffix), strict=True)
    return files, " and ".join(f"{path.relative_to(root)}/*{suffix}" for path, suffix in named)


def _listed(root: Path, files: SplitFiles, where: str) -> dict[str, tuple[SplitFiles, str]]:
    """Return the pairs that lists name, by split; a name without a pair, or in two lists, is a problem."""
    pairs = {key: pair for pair in files.pairs for key in (pair.name, pair.image.stem, pair.image.name)}
    found, taken = {}, {}
    for split, names in SPLITS.items():
        paths = [path for name in names for place in LISTS if (path := root / place / f"{name}.txt").is_file()]
        if not paths:
            continue
        if len({pair.name for pair in files.pairs}) < len(files.pairs):
            raise InputError(f"{paths[0]}: cannot tell images of one name in several folders apart")
        chosen, problems = [], []
        for line in filter(str.strip, paths[0].read_text(encoding="utf-8-sig", errors="replace").splitlines()):
            # a line may name the image, a space, and the label
            pair = pairs.get(Path(line.strip()).name) or pairs.get(Path(line.split()[0]).name)
            if pair is None or pair in taken:
                why = "has no image and label" if pair is None else f"is in {taken[pair]}, too"
                problems.append(f"{line.strip()} in {paths[0].name} {why}")
            else:
                taken[pair] = paths[0].name
                chosen.append(pair)
        found[split] = SplitFiles(files.images, chosen, problems, files.code), f"{where} by {paths[0].name}"
    return found


def suggest_classes(root: Path) -> str:
    """Write a classes.json for the labels of a folder without one, and return a line that says what was found.

    Classes are numbers if half of those up to the largest occur, else colours; rare colours become void. InputError for
    a classes.json that is there, labels that cannot be read, and too many colours.
    """
    path, table = root / "classes.json", ClassTable(("?",))
    if path.exists():
        raise InputError(f"{path}: is there already, and is not overwritten")
    place = next(filter(None, (_place(root, names, table) for names in (*SPLITS.values(), ("",)))), ())
    stems = [{file.stem for file in part.glob("*.*")} for part in place]
    if stems and not stems[0] & stems[1]:
        table = ClassTable(("?",), image_suffix=_ending(stems[0]), label_suffix=_ending(stems[1]))
    numbers, colours, coloured, unreadable = np.zeros(256, int), Counter(), False, InputError(f"{root}: no labels")
    for label in (pair.label for files in _splits(root, table)[0].values() for pair in files.pairs):
        try:
            values, counts = np.unique(read_label_colours(label), return_counts=True)
        except InputError as problem:
            unreadable = problem
            continue
        colours.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        try:
            numbers += np.bincount(read_label_values(label).ravel(), minlength=256)
        except InputError:
            coloured = True
    if not colours:
        raise unreadable
    entries = {name: getattr(table, name) for name in ("image_suffix", "label_suffix") if getattr(table, name)}
    present, count = np.flatnonzero(numbers[:VOID]).tolist(), 2
    said = f"the values {spans(np.flatnonzero(numbers))}"
    if not coloured and present and len(present) > max(present) / 2:
        if present != [0] or not numbers[VOID]:  # else masks of 0 and 255
            count = max(present) + 1
            entries |= {"ignore_index": VOID if numbers[VOID] else None}
    else:
        common = [rgb(key) for key, pixels in sorted(colours.items()) if pixels >= RARE * colours.total()]
        rare = [rgb(key) for key, pixels in colours.most_common() if pixels < RARE * colours.total()]
        if len(common) > VOID:
            raise InputError(f"{root}: its labels have {len(common)} colours; allowed: one a class, at most {VOID}")
        entries |= {"colors": common} | ({"ignore_colors": rare} if rare else {})
        count, said = len(common), f"{len(common)} colours"
        if rare:
            said += f" and {len(rare)} rare ones, taken for void: {', '.join(map(str, rare[:NAMED]))}"
    entries = {"classes": [f"class_{number}" for number in range(count)]} | entries
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items())
    write_whole(path, f"{{\n{lines}\n}}\n")
    return f"{path}: written for {said}; give the classes their names"


def _ending(stems: set[str]) -> str:
    """Return what all names end in, from its first "_" or "-" on."""
    end = commonprefix([stem[::-1] for stem in stems])[::-1]  # noqa: RUF071  (of names, not of paths)
    return end[min((end.index(sign) for sign in "_-" if sign in end), default=len(end)) :]

"""One's own images: a folder in any of the usual layouts, and a classes.json that says what its labels mean.

    ROOT/classes.json           {"classes": [NAME, ...]}, and what `ClassTable` and `Naming` list
    ROOT/images, ROOT/labels    or, of each split: SPLIT/images and SPLIT/labels, images/SPLIT and labels/SPLIT,
                                SPLIT and SPLIT_labels; files may lie one folder deeper
    ROOT/(train|val|test).txt   in the first layout, a name a line (with or without suffix); also in splits/ and
                                ImageSets/Segmentation/

Images may be of any size and mode. Labels are of the same size: greyscale or palettised class numbers, masks of 0 and
255 (two classes, no ignore_index), or the classes' ``colors``. Every other value or colour is an error.

There are always three splits, "train", "val" and "test". Where only two are found, the other one is "test", the set
that is reported on, and "val" is held out of "train"; where there is none, both are. What is held out is 15 % of the
names, drawn by a fixed seed. Images that belong together, such as frames of one video, need lists instead. The split
None is all images.
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
    "ROOT/classes.json, ROOT[/SPLIT]/images/NAME.(jpg|png|...) and ROOT[/SPLIT]/labels/NAME.(png|...); "
    f"images may be {', '.join(IMAGE_FOLDERS)}, labels {', '.join(LABEL_FOLDERS)}; SPLIT train, val or test"
)
HELD_OUT, HOLD_OUT_SEED = 0.15, 0
RARE = 1e-4  # of all pixels: a colour below may be a brush's edge

Colour = tuple[Byte, Byte, Byte]


@dataclass(frozen=True, kw_only=True)
class Naming(Checked):
    """Where the files are, as far as it is not told by the folders: ends of names before ".png", two sub-folders.

    With a ``label_suffix`` images and labels may share a folder.
    """

    role: ClassVar[str] = "entry"

    image_suffix: str = ""
    label_suffix: str = ""
    folders: tuple[str, str] | None = None  # of images and of labels, instead of the usual ones


@dataclass(frozen=True, kw_only=True)
class ClassTable(Naming):
    """What a classes.json says. Without a palette the classes get their ``colors``, or those of PASCAL VOC.

    ``colors`` are those of the classes in label files, in which ``ignore_colors`` are void; transparency is ignored.
    """

    classes: tuple[str, ...]
    ignore_index: Annotated[int, Range(1, 255)] | None = None  # the void of class numbers; 255 when a label is read
    palette: tuple[Colour, ...] | None = None
    colors: tuple[Colour, ...] | None = None
    ignore_colors: tuple[Colour, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.classes)
        if count > VOID or not all(self.classes) or len(set(self.classes)) < count:
            raise InputError(f"entry classes={list(self.classes)}: must be 1 to {VOID} different names")
        if self.ignore_index is not None and (self.ignore_index < count or self.colors):
            allowed = "null, beside colors" if self.colors else f"null or from {count} to 255, no class"
            raise InputError(f"entry ignore_index={self.ignore_index}: must be {allowed}")
        coded = (*(self.colors or ()), *(self.ignore_colors or ()))
        if (self.colors and len(self.colors) != count) or len(set(coded)) < len(coded) or (coded and not self.colors):
            raise InputError(f"entry colors: must be {count} different ones, one a class, none of ignore_colors")
        palette = self.palette or self.colors or tuple(map(voc_colour, range(count)))
        # One colour more than classes is the void's, as in the files of the SegNet tutorial's CamVid.
        if len(palette) not in (count, count + 1):
            raise InputError(f"entry palette: has {len(palette)} colours; must be {count}, one a class")
        object.__setattr__(self, "palette", palette[:count])

    def code(self, labels: list[Path]) -> LabelCode:
        """Return what the values of label files mean. A mask of 0 and 255 is told by the first that is not all 0."""
        values = tuple(range(len(self.classes)))
        if self.colors:
            return LabelCode(
                values, (len(values),) if self.ignore_colors else (), self.colors + (self.ignore_colors or ())
            )
        if len(values) == 2 and self.ignore_index is None:
            for label in labels:
                try:
                    found = np.unique(read_label_values(label)).tolist()
                except InputError:  # named when the data are used
                    continue
                if found != [0]:
                    return LabelCode((0, 255) if found in ([0, 255], [255]) else values)
        return LabelCode(values, () if self.ignore_index is None else (self.ignore_index,))


def read_classes(path: Path) -> ClassTable:
    """Read a classes.json, whose other entries are ignored; InputError if the file is missing or malformed."""
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; expected {LAYOUT}; `check-data folder {path.parent} --suggest` writes one"
        ) from None
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as JSON ({problem})") from problem
    known = [item.name for item in fields(ClassTable)]
    if not isinstance(table, dict):
        raise InputError(f"{path}: must be a table of {', '.join(known)}")
    try:
        return ClassTable.from_dict({name: value for name, value in table.items() if name in known})
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def is_folder(root: Path) -> bool:
    """Tell whether a folder looks like one's own images: by a classes.json, or by sub-folders of the usual names."""
    named = (root.glob(f"{deeper}{name}") for name in IMAGE_FOLDERS for deeper in ("", "*/"))
    return (root / "classes.json").is_file() or any(map(any, named))


def folder(root: Path) -> ImageSet:
    """Describe one's own folder; what is wrong with it is among the description's problems.

    Without a usable classes.json there are no classes, and every label value is allowed.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {LAYOUT}")
    table, found, about = None, {}, ""
    problems: list[str] = []
    try:
        table = read_classes(root / "classes.json")
    except InputError as problem:
        problems.append(str(problem))
    try:
        found, about = _splits(root, table or Naming())
    except (InputError, OSError) as problem:  # the list of a split that may not be read
        problems.append(str(problem))
    if table is None:
        return ImageSet("folder", (), (), dict.fromkeys(found), found.__getitem__, problems=problems, about=about)
    code = table.code([pair.label for files in found.values() for pair in files.pairs])
    found = {split: files._replace(code=code) for split, files in found.items()}
    coding = f"values {spans(code.values)}" + (f", void {spans(code.void)}" if code.void else "")
    if table.colors:
        coding = f"{len(table.colors)} colours, void {len(table.ignore_colors or ())}"
    return ImageSet(
        "folder",
        table.classes,
        table.palette,
        dict.fromkeys(found),
        found.__getitem__,
        unions={None: tuple(found)},
        problems=problems,
        about=f"{about}; labels: {coding}",
    )


def _splits(root: Path, naming: Naming) -> tuple[dict[str, SplitFiles], str]:
    """Return the files of "train", "val" and "test", and a line that says where each was found."""
    places = {split: _place(root, names, naming) for split, names in SPLITS.items()}
    found = {split: _pairs(root, place, naming) for split, place in places.items() if place}
    left = ""
    if not found:
        files, where = _pairs(root, _place(root, ("",), naming, needed=True), naming)
        found = _listed(root, files, naming, where)
        left = f"; in no list: {len(files.pairs) - sum(len(part.pairs) for part, _ in found.values())}" if found else ""
        found = found or {"train": (files, where)}
    elif bare := [name for split in SPLITS if split not in found for name in SPLITS[split] if _has_images(root, name)]:
        left = f"; without labels and left out: {', '.join(bare)}"
    if "train" not in found:
        raise InputError(f"{root}: there is {' and '.join(found)}, and no train; expected {LAYOUT}")
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    files, where = found["train"]
    lacking = [split for split in SPLITS if split not in found]
    share = max(1, round(HELD_OUT * len(files.pairs)))
    order = np.random.default_rng(HOLD_OUT_SEED).permutation(len(files.pairs))
    for split, part in zip(lacking, np.split(order, share * np.arange(1, len(lacking) + 1)), strict=False):
        pairs = [files.pairs[index] for index in sorted(part)]
        found[split] = SplitFiles(files.images, pairs, [], files.code), "held out of train by a fixed seed"
    rest = [files.pairs[index] for index in sorted(order[share * len(lacking) :])]
    found["train"] = files._replace(pairs=rest), where
    about = "; ".join(f"{split}: {len(found[split][0].pairs)} in {found[split][1]}" for split in SPLITS)
    return {split: found[split][0] for split in SPLITS}, (about + left).replace("in held", "held")


def _place(root: Path, names: Sequence[str], naming: Naming, needed: bool = False) -> tuple[Path, Path] | None:
    """Return the folders of the images and labels of the split of one of the names, "" for the root itself."""
    kinds = [naming.folders] if naming.folders else [*product(IMAGE_FOLDERS, LABEL_FOLDERS)]
    places = [
        place
        for name in names
        for place in (
            *((root / name / images, root / name / labels) for images, labels in kinds),
            *((root / images / name, root / labels / name) for images, labels in kinds),
            *((root / name, root / f"{name}{end}") for end in BESIDE if name),
        )
    ]
    places = list(dict.fromkeys(place for place in places if place[0].is_dir() and place[1].is_dir()))
    if not places and naming.label_suffix:
        shared = [root / name for name in names if any((root / name).glob(f"*{naming.label_suffix}.*"))]
        places = [(place, place) for place in shared]
    if len(places) > 1:
        listed = "; ".join(f"{images} with {labels}" for images, labels in places)
        raise InputError(
            f"{root}: images and labels are in more than one place: {listed}; choose by folders in classes.json"
        )
    if needed and not places:
        raise InputError(f"{root}: no images with labels; expected {LAYOUT}")
    return places[0] if places else None


def _has_images(root: Path, name: str) -> bool:
    return any((root / name / images).is_dir() or (root / images / name).is_dir() for images in IMAGE_FOLDERS)


def _pairs(root: Path, place: tuple[Path, Path], naming: Naming) -> tuple[SplitFiles, str]:
    """Return the pairs in two folders, and where they are."""
    images, labels = place
    deeper = not any(file.is_file() for file in images.glob("*.*"))
    files = match_pairs(
        images,
        labels,
        LabelCode(tuple(range(256))),
        LAYOUT,
        image_ends=[f"{naming.image_suffix}{end}" for end in IMAGE_SUFFIXES],
        label_ends=[f"{naming.label_suffix}{end}" for end in LABEL_SUFFIXES],
        pattern="*/*" if deeper else "*",
    )
    ends = (images, naming.image_suffix), (labels, naming.label_suffix)
    return files, " with ".join(f"{folder.relative_to(root)}/*{end}" for folder, end in ends)


def _listed(root: Path, files: SplitFiles, naming: Naming, where: str) -> dict[str, tuple[SplitFiles, str]]:
    """Return the pairs that lists name, by split; names without a pair, or in two lists, are problems."""
    pairs = {pair.name: pair for pair in files.pairs}
    taken: dict[str, str] = {}
    found = {}
    for split, names in SPLITS.items():
        paths = [path for name in names for place in LISTS if (path := root / place / f"{name}.txt").is_file()]
        if not paths:
            continue
        if len(pairs) < len(files.pairs):
            raise InputError(f"{paths[0]}: cannot tell images of one name in different folders apart")
        chosen, problems = [], []
        for line in filter(
            None, map(str.strip, paths[0].read_text(encoding="utf-8-sig", errors="replace").splitlines())
        ):
            # with or without a suffix; a line may also name image and label
            ends = [Path(part).name for part in (line, line.split()[0])]
            ends += [Path(end).stem for end in ends if Path(end).suffix.lower() in IMAGE_SUFFIXES]
            name = next(
                (name for end in ends for name in (end, end.removesuffix(naming.image_suffix)) if name in pairs), None
            )
            if name is None:
                problems.append(f"{paths[0].name}: no image and label of {line}")
            elif name in taken:
                problems.append(f"{paths[0].name}: {line} is in {taken[name]}, too")
            else:
                taken[name] = paths[0].name
                chosen.append(pairs[name])
        found[split] = SplitFiles(files.images, chosen, problems, files.code), f"{where}, listed in {paths[0].name}"
    return found


def suggest_classes(root: Path) -> str:
    """Write a classes.json for the labels in a folder that has none, and return a line that says what was found.

    Classes are numbers if at least half of the numbers up to the largest occur, else colours; colours that are rare
    become void. InputError for a classes.json that is there, and for labels that are too many colours.
    """
    path = root / "classes.json"
    if path.exists():
        raise InputError(f"{path}: is there already and is not overwritten")
    naming = Naming()
    places = [_place(root, names, naming) for names in (*SPLITS.values(), ("",))]
    stems = [{file.stem for file in folder.glob("*")} for place in places if place for folder in place]
    if stems and not set.intersection(*stems[:2]):
        naming = Naming(image_suffix=_ending(stems[0]), label_suffix=_ending(stems[1]))
    found, _ = _splits(root, naming)
    numbers, colours, coloured, unreadable = np.zeros(256, int), Counter(), False, None
    for label in (pair.label for files in found.values() for pair in files.pairs):
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
        raise unreadable or InputError(f"{root}: no image has a label; expected {LAYOUT}")
    present = np.flatnonzero(numbers[:VOID]).tolist()
    if not coloured and present == [0] and numbers[VOID]:
        entries, said = {"classes": 2}, "masks of 0 and 255"
    elif not coloured and present and max(present) < 2 * len(present):
        entries, said = {"classes": max(present) + 1}, f"values {spans(present)}"
        if numbers[VOID]:
            entries["ignore_index"], said = VOID, f"{said}, and 255, taken for void"
    else:
        common = sorted(key for key, count in colours.items() if count >= RARE * colours.total())
        rare = {tuple(rgb(key)): count for key, count in colours.most_common() if key not in common}
        if len(common) > VOID:
            raise InputError(f"{root}: its labels have {len(common)} colours; allowed: one a class, at most {VOID}")
        entries, said = {"classes": len(common), "colors": list(map(rgb, common))}, f"{len(common)} colours"
        if rare:
            entries["ignore_colors"] = list(rare)
            named = ", ".join(f"{list(key)} ({count} pixels)" for key, count in [*rare.items()][:NAMED])
            said += f"; rare ones, taken for void: {named}{', ...' if len(rare) > NAMED else ''}"
    entries["classes"] = [f"class_{number}" for number in range(entries["classes"])]
    entries |= {name: end for name, end in vars(naming).items() if end}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items())
    write_whole(path, f"{{\n{lines}\n}}\n")
    return f"{path}: written from {said}; name its classes"


def _ending(stems: set[str]) -> str:
    """Return what all names end in, from its first "_" or "-" on."""
    end = commonprefix([stem[::-1] for stem in stems])[::-1]  # noqa: RUF071  (of names, not of paths)
    return end[min((end.index(sign) for sign in "_-" if sign in end), default=len(end)) :]

"""One's own data: a folder of images and a folder of labels, with a list of classes.

    ROOT/classes.json                           {"classes": [NAME, ...], "ignore_index": 1..255 or null,
                                                 "palette": [[r, g, b], ...] (optional)}
    ROOT[/SPLIT]/images/NAME.(jpg|png|tif|...)  any size, any mode
    ROOT[/SPLIT]/labels/NAME.(png|tif|...)      the same size, palettised or greyscale; values are class numbers

The label value `ignore_index` of the files becomes 255 when a label is read.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from glamlib.data.images import ImageSet, LabelCode, SplitFiles, match_pairs, voc_colour
from glamlib.data.transforms import VOID, Byte
from glamlib.errors import Checked, InputError, Range

LAYOUT = "ROOT/classes.json, ROOT[/SPLIT]/images/NAME.(jpg|png|...) and ROOT[/SPLIT]/labels/NAME.(png|...)"


@dataclass(frozen=True)
class ClassTable(Checked):
    """What a classes.json says. Without a palette the classes get the PASCAL VOC colours."""

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
        known = [item.name for item in fields(ClassTable)]
        return ClassTable.from_dict({name: value for name, value in table.items() if name in known})
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def folder(root: Path) -> ImageSet:
    """Describe one's own folder. Its splits are the sub-folders with images/ or labels/, and None is the root itself.

    Of a folder without a usable classes.json there are no classes, and every label value is allowed.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {LAYOUT}")
    classes, palette, code, problems = (), (), LabelCode(tuple(range(256))), []
    try:
        table = read_classes(root / "classes.json")
        classes, palette = table.classes, table.palette
        void = () if table.ignore_index is None else (table.ignore_index,)
        code = LabelCode(tuple(range(len(classes))), void)
    except InputError as problem:
        problems.append(str(problem))
    splits = sorted(part.name for part in root.iterdir() if (part / "images").is_dir() or (part / "labels").is_dir())
    if not splits or (root / "images").is_dir():
        splits = [None, *splits]

    def find(split: str | None) -> SplitFiles:
        place = root / (split or "")
        return match_pairs(place / "images", place / "labels", code, LAYOUT)

    return ImageSet("folder", classes, palette, dict.fromkeys(splits), find, problems=problems)

"""Cityscapes, fine annotations: 2,975, 500 and 1,525 street scenes of 2048 x 1024 pixels, 19 classes.

    ROOT/leftImg8bit/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    ROOT/gtFine/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png (or labelTrainIds, where no labelIds are)

Source: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of https://www.cityscapes-dataset.com (registration
needed); Cordts et al., CVPR 2016. Ids, classes and colours are those of ``helpers/labels.py`` in
github.com/mcordts/cityscapesScripts: labelIds hold the raw ids 0..33, labelTrainIds the 19 classes and 255.
The labels of test are dummies: the hood of the car and the frame, which are void, and nothing else.
"""

from collections import Counter
from pathlib import Path

import pandas as pd

from glamlib.data.images import ImageSet, LabelCode, Pair, SplitFiles, read_class_table
from glamlib.data.transforms import VOID
from glamlib.errors import InputError

# Images of each city of a split, counted in the real set.
_COUNTS = pd.read_csv(Path(__file__).with_name("cityscapes_cities.csv")).groupby("split", sort=False)
CITIES = {split: dict(zip(part["city"], part["images"].tolist(), strict=True)) for split, part in _COUNTS}
SPLIT_SIZES = {split: sum(cities.values()) for split, cities in CITIES.items()}

CLASSES, PALETTE, _TABLE = read_class_table("cityscapes_classes.csv")
RAW_IDS = tuple(_TABLE["id"].tolist())  # all other raw ids are void

IMAGE_END = "_leftImg8bit.png"
RAW_END, TRAIN_END = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
CODES = {
    RAW_END: LabelCode(dict.fromkeys(range(34), VOID) | dict(map(reversed, enumerate(RAW_IDS))), "the raw ids 0..33"),
    TRAIN_END: LabelCode.plain(len(CLASSES), VOID),
}
LAYOUT = f"leftImg8bit/SPLIT/CITY/NAME{IMAGE_END} and gtFine/SPLIT/CITY/NAME{RAW_END} (or NAME{TRAIN_END})"


def find_files(root: Path, split: str) -> SplitFiles:
    """Return the files of a split, labelTrainIds only where it has no labelIds at all; InputError if there are none."""
    image_folder, label_folder = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder in (image_folder, label_folder):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected {LAYOUT}")
    images = _by_place(image_folder, IMAGE_END)
    if not images:
        raise InputError(f"{image_folder}: no images; expected {LAYOUT}")
    for end in (RAW_END, TRAIN_END):
        if labels := _by_place(label_folder, end):
            break
    else:
        raise InputError(f"{label_folder}: no labels; expected {LAYOUT}")
    pairs = [Pair(file.stem, file, labels[place]) for place, file in images.items() if place in labels]
    problems = [f"image {place}{IMAGE_END} has no label {place}{end}" for place in images if place not in labels]
    problems += [f"label {place}{end} has no image" for place in labels if place not in images]
    return SplitFiles(image_folder, pairs, problems, CODES[end])


def _by_place(folder: Path, end: str) -> dict[str, Path]:
    """Return the files of all cities by CITY/NAME, without the ``end`` of their names, sorted."""
    files = sorted(file for file in folder.glob(f"*/*{end}") if not file.name.startswith("."))
    return {f"{file.parent.name}/{file.name.removesuffix(end)}": file for file in files}


def missing(split: str, pairs: list[Pair]) -> str:
    """Name the cities of which a split lacks pairs, with the number it has."""
    have = Counter(pair.image.parent.name for pair in pairs)
    return ", ".join(f"{city} ({have[city]} of {count})" for city, count in CITIES[split].items() if have[city] < count)


CITYSCAPES = ImageSet("Cityscapes", CLASSES, PALETTE, SPLIT_SIZES, find_files, missing)

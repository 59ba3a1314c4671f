"""Cityscapes, fine annotations: 2,975, 500 and 1,525 street scenes of 2048 x 1024 pixels, 19 classes.

    ROOT/leftImg8bit/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    ROOT/gtFine/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png (or labelTrainIds, where no labelIds are)

Source: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of https://www.cityscapes-dataset.com (registration
needed); Cordts et al., CVPR 2016. Ids, classes and colours are those of ``helpers/labels.py`` in
github.com/mcordts/cityscapesScripts: labelIds hold the raw ids 0..33, labelTrainIds the 19 classes and 255.

The labels of test are dummies: the hood of the car and the frame, which are void, and nothing else.
"""

from pathlib import Path

from glamlib.data.images import ImageSet, LabelCode, Pair, SplitFiles
from glamlib.data.transforms import VOID
from glamlib.errors import InputError

# Images of each city, counted in the real set.
CITIES = {
    "train": {
        **{"aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221},
        **{"erfurt": 109, "hamburg": 248, "hanover": 196, "jena": 119, "krefeld": 99, "monchengladbach": 94},
        **{"strasbourg": 365, "stuttgart": 196, "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122},
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
    "test": {"berlin": 544, "bielefeld": 181, "bonn": 46, "leverkusen": 58, "mainz": 298, "munich": 398},
}
SPLIT_SIZES = {split: sum(cities.values()) for split, cities in CITIES.items()}

# Name of a class: its raw id and its colour; all other raw ids are void.
LABELS = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CLASSES = tuple(LABELS)
RAW_IDS = tuple(raw for raw, _ in LABELS.values())
PALETTE = tuple(colour for _, colour in LABELS.values())

IMAGE_END = "_leftImg8bit.png"
RAW_END, TRAIN_END = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
CODES = {
    RAW_END: LabelCode(
        dict.fromkeys(range(34), VOID) | {raw: number for number, raw in enumerate(RAW_IDS)}, "the raw ids 0..33"
    ),
    TRAIN_END: LabelCode.plain(len(CLASSES), VOID),
}
LAYOUT = f"leftImg8bit/SPLIT/CITY/NAME{IMAGE_END} and gtFine/SPLIT/CITY/NAME{RAW_END} (or NAME{TRAIN_END})"


def find_files(root: Path, split: str) -> SplitFiles:
    """Return the files of a split, sorted by city; labelTrainIds only where a split has no labelIds at all.

    Raises InputError if they are not there.
    """
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
    have = dict.fromkeys(CITIES[split], 0)
    for pair in pairs:
        city = pair.image.parent.name
        have[city] = have.get(city, 0) + 1
    return ", ".join(f"{city} ({have[city]} of {count})" for city, count in CITIES[split].items() if have[city] < count)


CITYSCAPES = ImageSet("Cityscapes", CLASSES, PALETTE, SPLIT_SIZES, find_files, missing)

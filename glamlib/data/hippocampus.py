"""Hippocampus: 260 MR crops of about 35 x 50 x 36 voxels of 1 mm, with the anterior and posterior part labelled.

Source: Medical Segmentation Decathlon, Task04, its training part (http://medicaldecathlon.com; Antonelli et al., Nature
Communications 2022; CC BY-SA 4.0). The image's scale differs from file to file, so each is normalised by itself.
"""

import json
from pathlib import Path

from glamlib.data.volumes import FileVolumes, Labels, Layout, Spacing, match_volumes, missing_cases, read_names, z_score
from glamlib.errors import InputError

SOURCE = "Task04_Hippocampus of the Medical Segmentation Decathlon, http://medicaldecathlon.com"
CASES = 260
SPLITS = ("train", "val")
LABELS = Labels(("background", "anterior", "posterior"), {0: 0, 1: 1, 2: 2}, sided=False)
FILE_NAME = r"(hippocampus_\d+)"


def find_hippocampus(root: Path) -> Layout:
    """Look through imagesTr and labelsTr below ``root`` or ``root``/Task04_Hippocampus; ``root`` may be a pack.

    The splits are those of train.txt and val.txt (one name a line) where both are there; without them every fifth case,
    in the order of the names, is val. A dataset.json, as the Decathlon's archive has one, is held against the files.
    Raises InputError where the folders or lists are missing or malformed.
    """
    base = root / "Task04_Hippocampus" if (root / "Task04_Hippocampus").is_dir() else root
    images, labels = base / "imagesTr", base / "labelsTr"
    if not images.is_dir() or not labels.is_dir():
        raise InputError(f"{root}: no imagesTr and labelsTr; expected {SOURCE}")
    pairs, problems = match_volumes(images, FILE_NAME, labels, FILE_NAME)
    lists = {split: read_names(base / f"{split}.txt") for split in SPLITS}
    if None in lists.values():
        lists = {split: [n for i, n in enumerate(pairs) if (i % 5 == 4) == (split == "val")] for split in SPLITS}
    listed = _listed(base / "dataset.json")
    problems += [f"{name} is in dataset.json and not here" for name in listed if name not in pairs]
    return Layout(images, pairs, lists, problems + missing_cases(pairs, lists))


def _listed(path: Path) -> list[str]:
    """Return the training cases that a Decathlon's dataset.json names, none without one; InputError if malformed."""
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        values = {int(value) for value in table["labels"]}
        names = [Path(case["image"]).name.partition(".")[0] for case in table["training"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{path}: not a Decathlon's dataset.json ({type(problem).__name__}: {problem})") from problem
    if values != LABELS.numbers.keys():
        raise InputError(f"{path}: its labels are {sorted(values)}; hippocampus has {sorted(LABELS.numbers)}")
    return names


class Hippocampus(FileVolumes):
    """The hippocampus crops, split "train" or "val", z-scored each by itself; left and right are told nowhere.

    Args:
        root: the folder or pack, as `find_hippocampus` takes it.
        split: "train" or "val".
        spacing: (depth, height, width) in mm to resample to; None leaves the files' 1 mm.
    """

    def __init__(self, root: Path, split: str, *, spacing: Spacing | None = None) -> None:
        super().__init__(find_hippocampus(root).select(split), LABELS, z_score, spacing)

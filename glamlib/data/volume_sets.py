"""The three data sets of volumes: where their files lie, what their labels mean, how their values are normalised.

Hippocampus: 260 MR crops of about 35 x 50 x 36 voxels of 1 mm, anterior and posterior part labelled. Medical
Segmentation Decathlon, Task04, training part (http://medicaldecathlon.com; Antonelli et al., Nature
Communications 2022; CC BY-SA 4.0).

Brains: 35 skull-stripped T1 volumes of about 160 x 200 x 165 voxels of 1 mm. MICCAI 2012 Grand Challenge on Multi-Atlas
Labeling, as packaged in https://github.com/muschellij2/malf.templates, inst/extdata (CC BY-NC): MRI of the OASIS
project (Marcus et al., Journal of Cognitive Neuroscience 2007), labels by Neuromorphometrics, Inc. Beware: the skull
was stripped with the labels, so the image gives brain against background away; score structures only. Five test
subjects were scanned twice (1003/1023, 1004/1024, 1005/1025, 1018/1038, 1019/1039).

Synapse: 30 abdominal CT volumes with 13 organs, the training part of "Beyond the Cranial Vault" (BCV, also BTCV),
https://www.synapse.org/Synapse:syn3193805 (registration needed); Landman et al., MICCAI 2015. The split into 18 and 12
cases and the choice of 8 organs are TransUNet's (Chen et al. 2021). No other cases are labelled: choose nothing on
"test".
"""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamlib.data.volumes import FileVolumes, Labels, Layout, Spacing, match_volumes, read_names, window, z_score
from glamlib.errors import InputError, one_of

HIPPOCAMPUS = Labels(("background", "anterior", "posterior"), {0: 0, 1: 1, 2: 2}, sided=False)

# Brains: the label values of each group's right and left part. Cortical parcels are even on the right.
CORTEX_RIGHT = tuple(value for value in range(100, 208, 2) if value not in (110, 130, 158, 188))  # some are never used
PAIRS = {
    "cerebral cortex": (CORTEX_RIGHT, tuple(value + 1 for value in CORTEX_RIGHT)),
    "cerebral white matter": ((44,), (45,)),
    "lateral ventricle": ((49, 51), (50, 52)),
    "cerebellar cortex": ((38,), (39,)),
    "cerebellar white matter": ((40,), (41,)),
    "thalamus": ((59,), (60,)),
    "caudate": ((36,), (37,)),
    "putamen": ((57,), (58,)),
    "pallidum": ((55,), (56,)),
    "hippocampus": ((47,), (48,)),
    "amygdala": ((31,), (32,)),
    "ventral diencephalon": ((61,), (62,)),
}
BRAIN_STEM = 35
VERMIS = (71, 72, 73)
# Ventricles and fluid of the middle, vessels, and parts that were not labelled in every subject
BRAIN_BACKGROUND = (0, 4, 11, 15, 23, 30, 42, 43, 46, 63, 64, 65, 66, 69, 74, 75, 76)
BRAIN_TRAIN = tuple(f"10{n:02}" for n in (0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 36))  # the challenge's

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland"),
)
EIGHT = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
SYNAPSE_TEST = ("0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038")
SYNAPSE_TRAIN = tuple(name for n in (*range(1, 11), *range(21, 41)) if (name := f"{n:04}") not in SYNAPSE_TEST)
HOUNSFIELD = (-175.0, 250.0)  # soft tissue; the range of MONAI's BTCV recipes (Tang et al., Swin UNETR, CVPR 2022)


def hippocampus_labels() -> Labels:
    """Return background, anterior and posterior part."""
    return HIPPOCAMPUS


def brain_labels(*, sides: bool = False) -> Labels:
    """Return 13 groups of structures, or, with ``sides``, 12 pairs of right and left and the brain stem.

    The cerebellar vermis belongs to the cerebellar cortex; it has no side, so with ``sides`` it is background.
    """
    if type(sides) is not bool:
        raise InputError(f"sides {sides!r} cannot be used; allowed: true, false")
    numbers = dict.fromkeys(BRAIN_BACKGROUND + VERMIS, 0)
    classes = ["background"]
    for name, (right, left) in PAIRS.items():
        for side, values in (("right", right), ("left", left)):
            if sides or side == "right":
                classes.append(f"{side} {name}" if sides else name)
            numbers |= dict.fromkeys(values, len(classes) - 1)
    if not sides:
        numbers |= dict.fromkeys(VERMIS, classes.index("cerebellar cortex"))
    classes.append("brain stem")
    return Labels(tuple(classes), numbers | {BRAIN_STEM: len(classes) - 1}, sided=sides)


def synapse_labels(*, organs: int = 13) -> Labels:
    """Return the 13 organs in the files' order, or the 8 of TransUNet in its order, the other five as background.

    The classes have sides, and so has the body: the liver lies on the right.
    """
    chosen = {13: ORGANS, 8: EIGHT}.get(organs) if type(organs) is int else None
    if chosen is None:
        raise one_of("number of organs", organs, (13, 8))
    numbers = {value: chosen.index(organ) + 1 if organ in chosen else 0 for value, organ in enumerate(ORGANS, start=1)}
    return Labels(("background", *chosen), {0: 0} | numbers, sided=True)


def find_hippocampus(root: Path) -> Layout:
    """Look through imagesTr and labelsTr below ``root`` or ``root``/Task04_Hippocampus.

    The splits are those of train.txt and val.txt (one name a line) where both are there; without them every fifth case,
    in the order of the names, is val. A dataset.json, as the Decathlon's archive has one, is held against the files.
    """
    base = root / "Task04_Hippocampus" if (root / "Task04_Hippocampus").is_dir() else root
    images, labels = base / "imagesTr", base / "labelsTr"
    if not images.is_dir() or not labels.is_dir():
        raise InputError(f"{root}: no imagesTr and labelsTr; expected {VOLUMES['hippocampus'].source}")
    cases, problems = match_volumes(images, r"(hippocampus_\d+)", labels, r"(hippocampus_\d+)")
    lists = {split: read_names(base / f"{split}.txt") for split in ("train", "val")}
    if None in lists.values():
        lists = {split: [n for i, n in enumerate(cases) if (i % 5 == 4) == (split == "val")] for split in lists}
    problems += [f"{name} is in dataset.json and not here" for name in _decathlon(base) if name not in cases]
    return Layout(images, cases, lists, problems)


def _decathlon(base: Path) -> list[str]:
    """Return the training cases that a Decathlon's dataset.json names, none without one; InputError if malformed."""
    path = base / "dataset.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        values = {int(value) for value in table["labels"]}
        names = [Path(case["image"]).name.partition(".")[0] for case in table["training"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{path}: not a Decathlon's dataset.json ({type(problem).__name__}: {problem})") from problem
    if values != HIPPOCAMPUS.numbers.keys():
        raise InputError(f"{path}: its labels are {sorted(values)}; hippocampus has {sorted(HIPPOCAMPUS.numbers)}")
    return names


def find_brains(root: Path) -> Layout:
    """Look through ``root``: images/ID.nii.gz and labels/ID.nii.gz, or the source's ID_SS.nii.gz and ID_glm.nii.gz.

    The splits are train.txt and test.txt, or else the challenge's own.
    """
    folder = root
    if (root / "images").is_dir() and (root / "labels").is_dir():
        folder = root / "images"
        cases, problems = match_volumes(folder, r"(\d+)", root / "labels", r"(\d+)")
    else:
        try:
            cases, problems = match_volumes(root, r"(\d+)_SS", root, r"(\d+)_glm")
        except InputError:
            source = VOLUMES["brains"].source
            raise InputError(f"{root}: neither images and labels nor ID_SS.nii.gz; expected {source}") from None
    splits = {split: read_names(root / f"{split}.txt") for split in ("train", "test")}
    if None in splits.values():
        splits = {"train": list(BRAIN_TRAIN), "test": [name for name in cases if name not in BRAIN_TRAIN]}
    return Layout(folder, cases, splits, problems)


def find_synapse(root: Path) -> Layout:
    """Look for img and label, or imagesTr and labelsTr, in ``root`` or its RawData and Training.

    Files are told by the four digits of their case: img0001.nii.gz and label0001.nii.gz, or names like BCV_0001.nii.gz
    (images also BCV_0001_0000.nii.gz) on both sides.
    """
    for base in (root, root / "Training", root / "RawData" / "Training", root / "RawData"):
        for images, labels in (("img", "label"), ("imagesTr", "labelsTr")):
            if (base / images).is_dir() and (base / labels).is_dir():
                image_name, label_name = r"[A-Za-z_]*(\d{4})(?:_0000)?", r"[A-Za-z_]*(\d{4})"
                cases, problems = match_volumes(base / images, image_name, base / labels, label_name)
                splits = {"train": list(SYNAPSE_TRAIN), "test": list(SYNAPSE_TEST)}
                return Layout(base / images, cases, splits, problems)
    source = VOLUMES["synapse"].source
    raise InputError(f"{root}: no folders img and label, or imagesTr and labelsTr; expected {source}")


class VolumeSet(NamedTuple):
    """A data set of volumes.

    Attributes:
        find: looks through a folder; raises InputError where the files are missing.
        labels: what the values mean; its keyword arguments are options of the set.
        normalise: maps a volume's values to float32.
        sizes: cases of each split; None under a split: only the sum of all counts.
        source: where to get it.
        spacing: (depth, height, width) in mm to resample to unless told otherwise; None leaves the files' own.
    """

    find: Callable[[Path], Layout]
    labels: Callable[..., Labels]
    normalise: Callable[[np.ndarray], np.ndarray]
    sizes: Mapping[str, int]
    source: str
    spacing: Spacing | None = None

    def open(self, name: str, root: Path, split: str, **options: object) -> FileVolumes:
        """Return a split; InputError for an unknown split or option, and for data that are missing or malformed."""
        spacing = options.pop("spacing", self.spacing)
        known = list(inspect.signature(self.labels).parameters)
        for option in options:
            if option not in known:
                raise one_of(f"option of {name}", option, ["spacing", *known])
        return FileVolumes(self.find(root).select(split), self.labels(**options), self.normalise, spacing)


VOLUMES = {
    "hippocampus": VolumeSet(
        find_hippocampus,
        hippocampus_labels,
        z_score,
        {"all": 260},
        "Task04_Hippocampus of the Medical Segmentation Decathlon, http://medicaldecathlon.com",
    ),
    "brains": VolumeSet(
        find_brains,
        brain_labels,
        z_score,
        {"train": 15, "test": 20},
        "inst/extdata of https://github.com/muschellij2/malf.templates",
    ),
    # The files' own spacings differ: 2.5 to 5 by 0.6 to 1 by 0.6 to 1 mm. MONAI's recipes use (2, 1.5, 1.5).
    "synapse": VolumeSet(
        find_synapse,
        synapse_labels,
        partial(window, low=HOUNSFIELD[0], high=HOUNSFIELD[1]),
        {"train": 18, "test": 12},
        "Abdomen/RawData.zip of https://www.synapse.org/Synapse:syn3193805 (registration needed)",
        (2.0, 1.5, 1.5),
    ),
}

"""Brains: 35 skull-stripped T1 volumes of about 160 x 200 x 165 voxels of 1 mm, the structures of both sides labelled.

Source: MICCAI 2012 Grand Challenge on Multi-Atlas Labeling, as packaged in https://github.com/muschellij2/malf.templates,
inst/extdata (CC BY-NC): MRI of the OASIS project (Marcus et al., Journal of Cognitive Neuroscience 2007), labels by
Neuromorphometrics, Inc. Two layouts are read: images/ID.nii.gz and labels/ID.nii.gz, and the source's own, ID_SS.nii.gz
and ID_glm.nii.gz.

Beware: the skull was stripped with the labels, so brain against background is given away by the image; score structures
only. Five test subjects were scanned twice (1003/1023, 1004/1024, 1005/1025, 1018/1038, 1019/1039).
"""

from pathlib import Path

from glamlib.data.volumes import FileVolumes, Labels, Layout, Spacing, match_volumes, missing_cases, read_names, z_score
from glamlib.errors import InputError

SOURCE = "inst/extdata of https://github.com/muschellij2/malf.templates"
SPLITS = {"train": 15, "test": 20}
TRAIN = tuple(f"10{n:02}" for n in (0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 36))  # the challenge's

# The label values of each group's right and left part. Cortical parcels are even on the right; some were never used.
CORTEX_RIGHT = tuple(value for value in range(100, 208, 2) if value not in (110, 130, 158, 188))
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
# Ventricles and fluid of the middle, vessels, and parts that were not labelled in every subject.
BACKGROUND = (0, 4, 11, 15, 23, 30, 42, 43, 46, 63, 64, 65, 66, 69, 74, 75, 76)


def brain_labels(sides: bool) -> Labels:
    """Return 13 groups of structures, or, with ``sides``, 12 pairs of right and left and the brain stem.

    The cerebellar vermis belongs to the cerebellar cortex; it has no side, so with ``sides`` it is background.
    """
    numbers = dict.fromkeys(BACKGROUND, 0) | dict.fromkeys(VERMIS, 0)
    classes = ["background"]
    for name, (right, left) in PAIRS.items():
        for side, values in (("right", right), ("left", left)):
            if sides or side == "right":
                classes.append(f"{side} {name}" if sides else name)
            numbers |= dict.fromkeys(values, len(classes) - 1)
    if not sides:
        numbers |= dict.fromkeys(VERMIS, classes.index("cerebellar cortex"))
    classes.append("brain stem")
    numbers[BRAIN_STEM] = len(classes) - 1
    return Labels(tuple(classes), numbers, sided=sides)


def find_brains(root: Path) -> Layout:
    """Look through ``root``, in either layout; the splits are train.txt and test.txt, or else the challenge's own.

    ``root`` may also be a pack. Raises InputError where the files are missing.
    """
    if (root / "images").is_dir() and (root / "labels").is_dir():
        pairs, problems = match_volumes(root / "images", r"(\d+)", root / "labels", r"(\d+)")
        folder = root / "images"
    else:
        try:
            pairs, problems = match_volumes(root, r"(\d+)_SS", root, r"(\d+)_glm")
        except InputError:
            raise InputError(f"{root}: neither images and labels nor ID_SS.nii.gz; expected {SOURCE}") from None
        folder = root
    splits = {split: read_names(root / f"{split}.txt") for split in SPLITS}
    if None in splits.values():
        splits = {"train": list(TRAIN), "test": [name for name in pairs if name not in TRAIN]}
    return Layout(folder, pairs, splits, problems + missing_cases(pairs, splits))


class Brains(FileVolumes):
    """The brains, split "train" or "test", z-scored over the brain's voxels.

    Args:
        root: the folder or pack, as `find_brains` takes it.
        split: "train" or "test".
        sides: whether right and left are classes of their own; see `brain_labels`.
        spacing: (depth, height, width) in mm to resample to; None leaves the files' 1 mm.
    """

    def __init__(self, root: Path, split: str, *, sides: bool = False, spacing: Spacing | None = None) -> None:
        if type(sides) is not bool:
            raise InputError(f"sides {sides!r} cannot be used; allowed: true, false")
        super().__init__(find_brains(root).select(split), brain_labels(sides), z_score, spacing)

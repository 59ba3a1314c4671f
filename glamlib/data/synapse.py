"""Synapse: 30 abdominal CT volumes with 13 organs, the training part of "Beyond the Cranial Vault" (BCV, also BTCV).

Source: https://www.synapse.org/Synapse:syn3193805, Abdomen/RawData.zip (registration needed); Landman et al., MICCAI
2015 challenge. The split into 18 and 12 cases and the choice of 8 organs are those of TransUNet (Chen et al. 2021),
which most later papers took over. There are no other labelled cases: choose no model and no setting on "test".
"""

from functools import partial
from pathlib import Path

from glamlib.data.volumes import FileVolumes, Labels, Layout, Spacing, match_volumes, missing_cases, window
from glamlib.errors import InputError, one_of

SOURCE = "Abdomen/RawData.zip of https://www.synapse.org/Synapse:syn3193805 (registration needed)"
SPLITS = {"train": 18, "test": 12}
TEST = ("0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038")
TRAIN = tuple(name for n in (*range(1, 11), *range(21, 41)) if (name := f"{n:04}") not in TEST)
FOLDERS = (  # as unpacked, and as the Decathlon's programs want it; each in the root or in RawData or Training
    ("img", "label"),
    ("imagesTr", "labelsTr"),
)
HOUNSFIELD = (-175.0, 250.0)  # soft tissue; the range of MONAI's BTCV recipes (Tang et al., Swin UNETR, CVPR 2022)

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland"),
)
EIGHT = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")


def synapse_labels(organs: int) -> Labels:
    """Return the 13 organs in the files' order, or the 8 of TransUNet in its order, the other five as background."""
    chosen = {13: ORGANS, 8: EIGHT}.get(organs)
    if chosen is None:
        raise one_of("number of organs", organs, (13, 8))
    numbers = {0: 0}
    for value, organ in enumerate(ORGANS, start=1):
        numbers[value] = chosen.index(organ) + 1 if organ in chosen else 0
    return Labels(("background", *chosen), numbers, sided=True)


def find_synapse(root: Path) -> Layout:
    """Look for the cases in the layouts of `FOLDERS`, also below RawData and Training, and split them 18 to 12.
    ``root`` may also be a pack.

    Files are told by the four digits of their case: img0001.nii.gz and label0001.nii.gz, or names like BCV_0001.nii.gz
    (images also BCV_0001_0000.nii.gz) on both sides. Raises InputError where there are none.
    """
    for base in (root, root / "Training", root / "RawData" / "Training", root / "RawData"):
        for images, labels in FOLDERS:
            if (base / images).is_dir() and (base / labels).is_dir():
                pairs, problems = match_volumes(
                    base / images, r"[A-Za-z_]*(\d{4})(?:_0000)?", base / labels, r"[A-Za-z_]*(\d{4})"
                )
                splits = {"train": list(TRAIN), "test": list(TEST)}
                return Layout(base / images, pairs, splits, problems + missing_cases(pairs, splits))
    raise InputError(f"{root}: no folders img and label, or imagesTr and labelsTr; expected {SOURCE}")


class Synapse(FileVolumes):
    """The abdomens, split "train" (18) or "test" (12), as CT values of -175..250 HU mapped to -1..1.

    The classes have sides, and so has the body: the liver lies on the right.

    Args:
        root: the folder or pack, as `find_synapse` takes it.
        split: "train" or "test".
        organs: 13 or 8; see `synapse_labels`.
        spacing: (depth, height, width) in mm to resample to; None leaves the files' own, which differ from case to case
            (2.5 to 5 by 0.6 to 1 by 0.6 to 1 mm). MONAI's recipes use (2, 1.5, 1.5).
    """

    def __init__(self, root: Path, split: str, *, organs: int = 13, spacing: Spacing | None = (2.0, 1.5, 1.5)) -> None:
        normalise = partial(window, low=HOUNSFIELD[0], high=HOUNSFIELD[1])
        super().__init__(find_synapse(root).select(split), synapse_labels(organs), normalise, spacing)

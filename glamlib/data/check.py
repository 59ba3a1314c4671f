"""Look through a dataset on disk before anything trains on it: every file is opened, and every bad one is named."""

from os import PathLike
from pathlib import Path

import numpy as np

from glamlib.data.camvid import CLASSES, SPLIT_SIZES, VOID_VALUE, split_folders
from glamlib.data.folder import (
    Pair,
    check_same_size,
    check_values,
    list_splits,
    match_pairs,
    read_classes,
    read_image,
    read_label_values,
)
from glamlib.data.report import CheckReport, SplitReport
from glamlib.data.volumes.check import check_volumes
from glamlib.data.volumes.registry import VOLUMES
from glamlib.errors import InputError, one_of

CHECKED = ("camvid", "folder", *VOLUMES)
WHOLE = "(no split)"  # the name under which images/ and labels/ in the root itself are reported


def check_data(name: str, path: str | PathLike[str]) -> CheckReport:
    """Open every file of the dataset ``name``, one of `CHECKED`, below ``path`` and report what is there.

    A bad file becomes a line of ``problems`` and the rest is read all the same. CamVid is also held to its 367, 101 and
    233 pairs, and volumes to the number of their cases. Raises InputError only for an unknown name or a ``path`` that
    is no folder.
    """
    if name not in CHECKED:
        raise one_of("dataset to check", name, CHECKED)
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if name in VOLUMES:
        return check_volumes(name, root)
    report = CheckReport(name, str(root))
    if name == "camvid":
        for split in SPLIT_SIZES:
            _check_split(report, split, CLASSES, VOID_VALUE)
        return report

    classes, void = (), None
    try:
        table = read_classes(root / "classes.json")
        classes, void = table.classes, table.ignore_index
    except InputError as problem:
        report.problems.append(str(problem))
    splits = list_splits(root)
    if not splits or (root / "images").is_dir():
        splits = [WHOLE, *splits]
    for split in splits:
        _check_split(report, split, classes, void)
    return report


def _check_split(report: CheckReport, name: str, classes: tuple[str, ...], void: int | None) -> None:
    """Add the split ``name`` to the report."""
    split = report.splits[name] = SplitReport()
    try:
        images, labels = _folders(report, name)
        pairs, unmatched = match_pairs(images, labels)
    except InputError as problem:
        report.problems.append(str(problem))
        return
    report.problems += [f"{images}: {line}" for line in unmatched]
    split.pairs = len(pairs)
    expected = SPLIT_SIZES[name] if report.name == "camvid" else len(pairs)
    if len(pairs) != expected:
        report.problems.append(f"{images}: {len(pairs)} pairs; CamVid {name} has {expected}")
    for pair in pairs:
        report.problems += _check_pair(pair, split, len(classes) or 256, void)
    split.set_percentages(classes, void)


def _folders(report: CheckReport, split: str) -> tuple[Path, Path]:
    root = Path(report.path)
    if report.name == "camvid":
        return split_folders(root, split)
    folder = root if split == WHOLE else root / split
    return folder / "images", folder / "labels"


def _check_pair(pair: Pair, split: SplitReport, num_classes: int, void: int | None) -> list[str]:
    """Count a pair's size and label values into ``split``; return a line for everything wrong with its two files."""
    problems = []
    image = values = None
    try:
        image = read_image(pair.image)
        split.sizes["{} x {}".format(*image.shape[1:])] += 1
    except InputError as problem:
        problems.append(str(problem))
    try:
        values = read_label_values(pair.label)
        counts = np.bincount(values.ravel(), minlength=256)
        split.values.update({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
        check_values(pair.label, values, num_classes, void)
    except InputError as problem:
        problems.append(str(problem))
    if image is not None and values is not None:
        try:
            check_same_size(pair, image, values)
        except InputError as problem:
            problems.append(str(problem))
    return problems

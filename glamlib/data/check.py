"""Look through a dataset on disk before anything trains on it: every file is opened, and every bad one is named."""

from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glamlib.data import ade20k, camvid, cityscapes
from glamlib.data.check_volumes import check_volumes
from glamlib.data.datasets import VOLUMES
from glamlib.data.images import (
    LabelCode,
    Pair,
    SplitFiles,
    check_same_size,
    list_splits,
    match_pairs,
    plain_code,
    read_classes,
    read_image,
    read_label_values,
)
from glamlib.data.report import CheckReport, SplitReport
from glamlib.errors import InputError, one_of

WHOLE = "(no split)"  # the name under which images/ and labels/ in the root itself are reported


class Published(NamedTuple):
    """A set of which everybody has the same files: where they are, how many, and the names of those missing."""

    title: str
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    find: Callable[[Path, str], SplitFiles]
    missing: Callable[[str, list[Pair]], str] | None = None


PUBLISHED = {
    "camvid": Published("CamVid", camvid.CLASSES, camvid.SPLIT_SIZES, camvid.find_files),
    "ade20k": Published("ADE20K", ade20k.CLASSES, ade20k.SPLIT_SIZES, ade20k.find_files, ade20k.missing),
    "cityscapes": Published(
        "Cityscapes", cityscapes.CLASSES, cityscapes.SPLIT_SIZES, cityscapes.find_files, cityscapes.missing
    ),
}
CHECKED = ("camvid", "folder", "ade20k", "cityscapes", *VOLUMES)


def check_data(name: str, path: str | PathLike[str]) -> CheckReport:
    """Open every file of the dataset ``name``, one of `CHECKED`, below ``path`` and report what is there.

    A bad file becomes a line of ``problems`` and the rest is read all the same. A published set is also held to its
    number of pairs, or of cases, and what it lacks is named. Raises InputError only for an unknown name or a ``path``
    that is no folder (nor, of volumes, a pack).
    """
    if name not in CHECKED:
        raise one_of("dataset to check", name, CHECKED)
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if name in VOLUMES:
        return check_volumes(name, root)
    report = CheckReport(name, str(root))
    if name in PUBLISHED:
        published = PUBLISHED[name]
        for split in published.sizes:
            files = _check_split(report, split, published.classes, partial(published.find, root, split))
            if files is not None:
                report.problems += _check_count(published, split, files)
        return report

    classes, void = (), None
    try:
        table = read_classes(root / "classes.json")
        classes, void = table.classes, table.ignore_index
    except InputError as problem:
        report.problems.append(str(problem))
    code = plain_code(len(classes) or 256, void)
    splits = list_splits(root)
    if not splits or (root / "images").is_dir():
        splits = [WHOLE, *splits]
    for split in splits:
        folder = root if split == WHOLE else root / split
        _check_split(report, split, classes, partial(_folder_files, folder, code))
    return report


def _folder_files(folder: Path, code: LabelCode) -> SplitFiles:
    """Return the files of one's own folder."""
    return SplitFiles(folder / "images", *match_pairs(folder / "images", folder / "labels"), code)


def _check_split(
    report: CheckReport, name: str, classes: tuple[str, ...], find: Callable[[], SplitFiles]
) -> SplitFiles | None:
    """Add the split ``name`` to the report; return its files, None where there are none."""
    split = report.splits[name] = SplitReport()
    try:
        files = find()
    except InputError as problem:
        report.problems.append(str(problem))
        return None
    report.problems += [f"{files.images}: {line}" for line in files.problems]
    split.pairs = len(files.pairs)
    for pair in files.pairs:
        report.problems += _check_pair(pair, split, files.code)
    split.set_percentages(classes, files.code.meaning)
    return files


def _check_count(published: Published, split: str, files: SplitFiles) -> list[str]:
    """Return a line if a split has another number of pairs than everybody's, with what it lacks."""
    expected = published.sizes[split]
    lacking = published.missing(split, files.pairs) if published.missing else ""
    if len(files.pairs) == expected and not lacking:
        return []
    line = f"{files.images}: {len(files.pairs)} pairs; {published.title} {split} has {expected}"
    return [f"{line}; missing: {lacking}" if lacking else line]


def _check_pair(pair: Pair, split: SplitReport, code: LabelCode) -> list[str]:
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
        code.check(pair.label, values)
    except InputError as problem:
        problems.append(str(problem))
    if image is not None and values is not None:
        try:
            check_same_size(pair, image, values)
        except InputError as problem:
            problems.append(str(problem))
    return problems

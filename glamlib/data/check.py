"""Look through a dataset on disk before anything trains on it: every file is opened, and every bad one is named."""

from collections import Counter
from dataclasses import dataclass, field
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
from glamlib.errors import InputError, one_of

CHECKED = ("camvid", "folder")
WHOLE = "(no split)"  # the name under which images/ and labels/ in the root itself are reported


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        pairs: images with a label of the same name.
        sizes: number of images by "height x width" in pixels.
        values: number of pixels by label value, as stored in the files (void is not 255 there).
        class_percent: share of each class in the pixels that belong to a class; empty if none does.
        void_percent: share of void in the pixels that belong to a class or to void.
    """

    pairs: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)
    class_percent: dict[str, float] = field(default_factory=dict)
    void_percent: float = 0.0

    def set_percentages(self, classes: tuple[str, ...], void: int | None) -> None:
        """Fill in the shares from ``values``; a value that is neither a class nor void counts nowhere."""
        pixels = [self.values[value] for value in range(len(classes))]
        void_pixels = 0 if void is None else self.values[void]
        if sum(pixels):
            self.class_percent = {name: 100 * n / sum(pixels) for name, n in zip(classes, pixels, strict=True)}
        if sum(pixels) + void_pixels:
            self.void_percent = 100 * void_pixels / (sum(pixels) + void_pixels)


@dataclass
class CheckReport:
    """What `check_data` found; ``problems`` has one line for every bad file, and is empty for good data."""

    name: str
    path: str
    splits: dict[str, SplitReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there was nothing to report."""
        return not self.problems

    def to_dict(self) -> dict:
        """Return the report as plain dicts, lists, numbers and strings, for JSON."""
        splits = {
            name: {
                "pairs": split.pairs,
                "sizes": dict(sorted(split.sizes.items())),
                "label_values": sorted(split.values),
                "class_percent": split.class_percent,
                "void_percent": split.void_percent,
            }
            for name, split in self.splits.items()
        }
        return {"name": self.name, "path": self.path, "ok": self.ok, "splits": splits, "problems": self.problems}

    def render(self) -> str:
        """Return the report as text for a terminal: a paragraph a split, a table of class shares, then the problems."""
        lines = [f"{self.name} at {self.path}"]
        for name, split in self.splits.items():
            sizes = ", ".join(f"{size} ({count})" for size, count in sorted(split.sizes.items()))
            values = ", ".join(map(str, sorted(split.values)))
            lines.append(
                f"{name}: {split.pairs} pairs; height x width: {sizes or 'none'}; label values: {values or 'none'}"
            )
        classes = list(dict.fromkeys(c for split in self.splits.values() for c in split.class_percent))
        if classes:
            width = max(len(label) for label in (*classes, "void, % of all"))
            lines += ["", "% of class pixels".ljust(width) + "".join(f"{name:>9}" for name in self.splits)]
            for c in classes:
                shares = (split.class_percent.get(c) for split in self.splits.values())
                lines.append(c.ljust(width) + "".join(f"{'-' if s is None else f'{s:.2f}':>9}" for s in shares))
            voids = (f"{split.void_percent:9.2f}" for split in self.splits.values())
            lines.append("void, % of all".ljust(width) + "".join(voids))
        lines += ["", f"{len(self.problems)} problem(s)", *(f"  {problem}" for problem in self.problems)]
        return "\n".join(lines)


def check_data(name: str, path: str | PathLike[str]) -> CheckReport:
    """Open every file of the dataset ``name`` ("camvid" or "folder") below ``path`` and report what is there.

    A bad file becomes a line of ``problems`` and the rest is read all the same. CamVid is also held to its 367, 101 and
    233 pairs. Raises InputError only for an unknown name or a ``path`` that is no folder.
    """
    if name not in CHECKED:
        raise one_of("dataset to check", name, CHECKED)
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
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

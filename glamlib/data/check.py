"""Look through a data set on disk before anything trains on it: every file is opened, and every bad one is named."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.data.datasets import DATASETS, PUBLISHED
from glamlib.data.images import (
    LabelCode,
    SplitFiles,
    list_splits,
    match_pairs,
    read_classes,
    read_image,
    read_label_values,
)
from glamlib.data.transforms import VOID
from glamlib.data.volume_sets import VOLUMES, brain_labels
from glamlib.data.volumes import Case, Labels
from glamlib.errors import InputError, one_of

WHOLE = "(no split)"  # the name under which images/ and labels/ in the root itself are reported


CHECKED = (*DATASETS, *VOLUMES)


@dataclass
class SplitReport:
    """What one split holds; of volumes, values are class numbers, and there are spacings and absent structures.

    Attributes:
        pairs: images with a label.
        sizes: number of images by "height x width" in pixels, of volumes "depth x height x width" in voxels.
        values: number of pixels by label value, as stored in the files (void is not 255 there).
        class_percent: share of each class in the pixels that belong to a class; empty if none does.
        void_percent: share of void in the pixels that belong to a class or to void.
        spacings: number of volumes by "depth x height x width" of a voxel in mm.
        absent: number of volumes that lack a structure, by its name; only of those that some volume lacks.
    """

    pairs: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)
    class_percent: dict[str, float] = field(default_factory=dict)
    void_percent: float = 0.0
    spacings: Counter[str] = field(default_factory=Counter)
    absent: Counter[str] = field(default_factory=Counter)

    def count(self, values: np.ndarray) -> None:
        """Count label values in."""
        self.values.update(dict(zip(*map(np.ndarray.tolist, np.unique(values, return_counts=True)), strict=True)))

    def set_percentages(self, classes: tuple[str, ...], meaning: Mapping[int, int]) -> None:
        """Fill in the shares; ``meaning`` says which class each stored value is, or 255 for void."""
        by_class = Counter()
        for value, number in meaning.items():
            by_class[number] += self.values[value]
        pixels, void_pixels = [by_class[number] for number in range(len(classes))], by_class[VOID]
        if sum(pixels):
            self.class_percent = {name: 100 * n / sum(pixels) for name, n in zip(classes, pixels, strict=True)}
        if sum(pixels) + void_pixels:
            self.void_percent = 100 * void_pixels / (sum(pixels) + void_pixels)

    def summary(self) -> str:
        """Return sizes and label values on a line; of volumes ranges of sizes and spacings, and what is absent."""
        if self.spacings:
            absent = ", ".join(f"{name} ({count})" for name, count in self.absent.items())
            sizes, spacings = _range(self.sizes), _range(self.spacings)
            return f"voxels (depth x height x width): {sizes}; mm: {spacings}; absent (cases): {absent or 'none'}"
        sizes = ", ".join(f"{size} ({count})" for size, count in sorted(self.sizes.items()))
        values = ", ".join(map(str, sorted(self.values)))
        return f"height x width: {sizes or 'none'}; label values: {values or 'none'}"

    def to_dict(self) -> dict:
        """Return what was found as plain dicts, lists, numbers and strings, for JSON."""
        found = {
            "pairs": self.pairs,
            "sizes": dict(sorted(self.sizes.items())),
            "label_values": sorted(self.values),
            "class_percent": self.class_percent,
            "void_percent": self.void_percent,
        }
        if self.spacings:
            found |= {"spacings": dict(sorted(self.spacings.items())), "absent": dict(self.absent)}
        return found


def _range(sizes: Counter[str]) -> str:
    """Return the least and the largest of "a x b x c" axis by axis, as "a..A x b..B x c..C"."""
    axes = zip(*(size.split(" x ") for size in sizes), strict=True)
    ends = ((min(axis, key=float), max(axis, key=float)) for axis in axes)
    return " x ".join(low if low == high else f"{low}..{high}" for low, high in ends)


@dataclass
class CheckReport:
    """What `check_data` found: one line of ``problems`` for every bad file, and ``warnings`` of what looks wrong."""

    name: str
    path: str
    splits: dict[str, SplitReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict:
        """Return the report as plain dicts, lists, numbers and strings, for JSON."""
        splits = {name: split.to_dict() for name, split in self.splits.items()}
        found = {"name": self.name, "path": self.path, "ok": self.ok, "splits": splits}
        return found | {"problems": self.problems, "warnings": self.warnings}

    def render(self) -> str:
        """Return the report as text for a terminal: a line a split, a table of class shares, problems and warnings."""
        lines = [f"{self.name} at {self.path}"]
        lines += [f"{name}: {split.pairs} pairs; {split.summary()}" for name, split in self.splits.items()]
        shares = pd.DataFrame({name: split.class_percent for name, split in self.splits.items()}, dtype=float)
        if len(shares):
            shares.loc["void, % of all"] = [split.void_percent for split in self.splits.values()]
            shares.columns.name = "% of class pixels"
            lines += ["", shares.to_string(float_format="{:.2f}".format, na_rep="-")]
        for what in ("problem", "warning"):
            found = getattr(self, f"{what}s")
            lines += ["", f"{len(found)} {what}(s)", *(f"  {line}" for line in found)]
        # a name that no terminal can print must not stop the report
        return "\n".join(lines).encode(errors="backslashreplace").decode()


def check_data(name: str, path: str | PathLike[str]) -> CheckReport:
    """Open every file of the data set ``name``, one of `CHECKED`, below ``path`` and report what is there.

    A bad file becomes a line of ``problems`` and the rest is read all the same. A published set is also held to its
    number of pairs, or of cases, and what it lacks is named. Raises InputError only for an unknown name or a ``path``
    that is no folder.
    """
    if name not in CHECKED:
        raise one_of("dataset to check", name, CHECKED)
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    report = CheckReport(name, str(root))
    if name in VOLUMES:
        _check_volumes(report, root)
    elif name in PUBLISHED:
        published = PUBLISHED[name]
        for split, expected in published.sizes.items():
            files = _check_split(report, split, published.classes, partial(published.find, root, split))
            lacking = published.missing(split, files.pairs) if files else ""
            if files and (len(files.pairs) != expected or lacking):
                line = f"{files.images}: {len(files.pairs)} pairs; {published.title} {split} has {expected}"
                report.problems.append(f"{line}; missing: {lacking}" if lacking else line)
    else:
        _check_folder(report, root)
    return report


def _check_folder(report: CheckReport, root: Path) -> None:
    classes, code = (), LabelCode.plain(256, None)
    try:
        table = read_classes(root / "classes.json")
        classes, code = table.classes, LabelCode.plain(len(table.classes), table.ignore_index)
    except InputError as problem:
        report.problems.append(str(problem))
    splits = list_splits(root)
    if not splits or (root / "images").is_dir():
        splits = [WHOLE, *splits]
    for split in splits:
        folder = root if split == WHOLE else root / split
        _check_split(report, split, classes, partial(match_pairs, folder / "images", folder / "labels", code))
    met = {name for split in report.splits.values() for name, share in split.class_percent.items() if share}
    absent = absent_classes(classes, met)
    if absent:
        report.warnings.append(absent)
    if len(met) == 1 and len(classes) > 1:
        report.problems.append(f"{root}: every labelled pixel is {met.pop()!r}; is its counterpart taken for void?")


def absent_classes(classes: tuple[str, ...], met: set[str]) -> str:
    """Return a line that names the classes that no label holds; "" where all are met, or none."""
    absent = [name for name in classes if name not in met] if met else []
    return f"no label holds {', '.join(absent)}" if absent else ""


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
        image = values = None
        try:
            image = read_image(pair.image)
            split.sizes["{} x {}".format(*image.shape[1:])] += 1
        except InputError as problem:
            report.problems.append(str(problem))
        try:
            values = read_label_values(pair.label)
            split.count(values)
            if (files.code.decode(pair.label, values) == VOID).all():
                report.warnings.append(f"{pair.label}: no labelled pixel, all are void")
        except InputError as problem:
            report.problems.append(str(problem))
        try:
            if image is not None and values is not None:
                pair.check_same_size(image, values)
        except InputError as problem:
            report.problems.append(str(problem))
    split.set_percentages(classes, files.code.meaning)
    return files


def _check_volumes(report: CheckReport, root: Path) -> None:
    volumes = VOLUMES[report.name]
    labels = brain_labels(sides=True) if report.name == "brains" else volumes.labels()
    try:
        layout = volumes.find(root)
    except InputError as problem:
        report.problems.append(str(problem))
        return
    report.problems += [f"{layout.folder}: {line}" for line in layout.problems]
    if len(layout.cases) != volumes.num_cases:
        report.problems.append(f"{layout.folder}: {len(layout.cases)} cases; {report.name} has {volumes.num_cases}")
    for split, names in layout.splits.items():
        cases = [layout.cases[name] for name in names if name in layout.cases]
        found = report.splits[split] = SplitReport(len(cases))
        for case in cases:
            report.problems += _check_case(case, found, labels)
        found.set_percentages(labels.classes, {number: number for number in range(len(labels.classes))})


def _check_case(case: Case, split: SplitReport, labels: Labels) -> list[str]:
    """Count a case into ``split``; return a line for what is wrong with it."""
    try:
        _, label, spacing = case.read(labels)
    except InputError as problem:
        return [str(problem)]
    split.count(label)
    split.sizes[" x ".join(map(str, label.shape))] += 1
    split.spacings[" x ".join(f"{side:.3g}" for side in spacing)] += 1
    present = np.bincount(label.reshape(-1), minlength=len(labels.classes)) > 0
    split.absent.update(name for name, there in zip(labels.classes, present, strict=True) if not there)
    return [] if label.any() else [f"{case.label}: no voxel of any structure"]

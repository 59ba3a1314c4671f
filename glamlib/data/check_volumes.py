"""Look through a data set of volumes before anything trains on it: every file is opened, and every bad one is named."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glamlib.data import brains, hippocampus, synapse
from glamlib.data.report import CheckReport, SplitReport
from glamlib.data.volumes import Labels, NiftiCase, read_pair
from glamlib.errors import InputError

# How a set's files are found, what its label values mean, and how many cases it has: in all, or by split.
SETS = {
    "hippocampus": (hippocampus.find_hippocampus, hippocampus.LABELS, hippocampus.CASES),
    "brains": (brains.find_brains, brains.brain_labels(sides=True), brains.SPLITS),
    "synapse": (synapse.find_synapse, synapse.synapse_labels(13), synapse.SPLITS),
}


@dataclass
class VolumeSplitReport(SplitReport):
    """What one split of volumes holds; ``sizes`` are "depth x height x width" in voxels, ``values`` are class numbers.

    Attributes:
        spacings: number of cases by "depth x height x width" of a voxel in mm.
        absent: number of cases that lack a structure, by its name; only of those that some case lacks.
    """

    spacings: Counter[str] = field(default_factory=Counter)
    absent: Counter[str] = field(default_factory=Counter)

    def add(self, label: np.ndarray, spacing: tuple[float, float, float], classes: tuple[str, ...]) -> None:
        """Count a case in, of class numbers (D, H, W)."""
        counts = np.bincount(label.reshape(-1), minlength=len(classes))
        self.sizes[" x ".join(map(str, label.shape))] += 1
        self.spacings[" x ".join(f"{side:.3g}" for side in spacing)] += 1
        self.values.update({number: int(count) for number, count in enumerate(counts) if count})
        self.absent.update(name for name, count in zip(classes, counts, strict=True) if not count)

    def summary(self) -> str:
        """Return the ranges of sizes and spacings and what is absent, on a line."""
        absent = ", ".join(f"{name} ({count})" for name, count in self.absent.items())
        return (
            f"voxels (depth x height x width): {_range(self.sizes)}; mm: {_range(self.spacings)}; "
            f"absent (cases): {absent or 'none'}"
        )

    def to_dict(self) -> dict:
        """Return what was found as plain dicts, lists, numbers and strings, for JSON."""
        spacings = dict(sorted(self.spacings.items()))
        return {**super().to_dict(), "spacings": spacings, "absent": dict(self.absent)}


def _range(sizes: Counter[str]) -> str:
    """Return the least and the largest of "a x b x c" axis by axis, as "a..A x b..B x c..C"."""
    if not sizes:
        return "none"
    axes = zip(*(size.split(" x ") for size in sizes), strict=True)
    ends = ((min(axis, key=float), max(axis, key=float)) for axis in axes)
    return " x ".join(low if low == high else f"{low}..{high}" for low, high in ends)


def check_volumes(name: str, root: Path) -> CheckReport:
    """Open every case of the set ``name`` in the folder or pack ``root`` and report what is there, a line a problem."""
    find, labels, expected = SETS[name]
    report = CheckReport(name, str(root))
    try:
        layout = find(root)
    except InputError as problem:
        report.problems.append(str(problem))
        return report
    report.problems += [f"{layout.folder}: {line}" for line in layout.problems]
    if isinstance(expected, int):
        _check_count(report, layout.folder, name, len(layout.pairs), expected)
    for split, names in layout.splits.items():
        found = report.splits[split] = VolumeSplitReport()
        pairs = [layout.pairs[case] for case in names if case in layout.pairs]
        found.pairs = len(pairs)
        if not isinstance(expected, int):
            _check_count(report, layout.folder, f"{name} {split}", len(pairs), expected[split])
        for pair in pairs:
            report.problems += _check_case(pair, found, labels)
        found.set_percentages(labels.classes, None)
    return report


def _check_count(report: CheckReport, folder: Path, what: str, have: int, expected: int) -> None:
    if have != expected:
        report.problems.append(f"{folder}: {have} cases; {what} has {expected}")


def _check_case(pair: NiftiCase, split: VolumeSplitReport, labels: Labels) -> list[str]:
    """Count a case into ``split``; return a line for what is wrong with it."""
    try:
        image, label, spacing = read_pair(pair, labels)
    except InputError as problem:
        return [str(problem)]
    split.add(label, spacing, labels.classes)
    problems = []
    if image.min() == image.max():
        problems.append(f"{pair.image}: all voxels have one value")
    if not label.any():
        problems.append(f"{pair.label}: no voxel of any structure")
    return problems

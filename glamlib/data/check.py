"""Look through a data set on disk before anything trains on it: every file is opened, and every bad one is named."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.data.datasets import FINDERS
from glamlib.data.layout import Layout, by, spans
from glamlib.data.transforms import VOID
from glamlib.errors import InputError, lookup

DARK = 16  # of 255: what 12 bits in a file of 16 are read as


@dataclass
class CheckReport:
    """What `check_data` found: for each split the dict of `_checked`, a line for each problem and each warning."""

    name: str
    path: str
    about: str = ""
    splits: dict[str, dict] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Turn an InputError into a problem."""
        try:
            yield
        except InputError as problem:
            self.problems.append(str(problem))

    def to_dict(self) -> dict:
        """Return the report for JSON."""
        return asdict(self) | {"ok": self.ok}

    def render(self) -> str:
        """Return the report for a terminal."""
        lines = [f"{self.name} at {self.path}", *filter(None, [self.about])]
        lines += [f"{name}: {_summary(split)}" for name, split in self.splits.items()]
        shares = pd.DataFrame({name: split["class_percent"] for name, split in self.splits.items()}, dtype=float)
        if len(shares):
            shares.loc["void, % of all"] = [split["void_percent"] for split in self.splits.values()]
            shares.columns.name = "% of class pixels"
            lines += ["", shares.to_string(float_format="{:.2f}".format, na_rep="-")]
        for what, found in (("problem", self.problems), ("warning", self.warnings)):
            lines += ["", f"{len(found)} {what}(s)", *(f"  {line}" for line in found)]
        return "\n".join(lines)


def _summary(split: dict) -> str:
    text = f"height x width: {_range(split['sizes'])}; class numbers: {spans(split['class_numbers'])}"
    if "spacings" in split:
        absent = ", ".join(f"{name} ({count})" for name, count in split["absent"].items()) or "none"
        text = f"depth x {text}; mm: {_range(split['spacings'])}; absent (cases): {absent}"
    return f"{split['pairs']} pairs; {text}"


def _range(sizes: dict[str, int]) -> str:
    """Return the least and the largest of "a x b x c" axis by axis, as "a..A x b..B x c..C"."""
    axes = zip(*(size.split(" x ") for size in sizes), strict=True)
    ends = ((min(axis, key=float), max(axis, key=float)) for axis in axes)
    return " x ".join(low if low == high else f"{low}..{high}" for low, high in ends) or "none"


def check_data(name: str, path: str | PathLike[str]) -> CheckReport:
    """Open every file of the data set ``name``, below ``path`` and report what is there.

    Raises InputError only for an unknown name or a ``path`` that is no folder. A published set should be complete.
    """
    find, root = lookup("dataset to check", name, FINDERS), Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    report = CheckReport(name, str(root))
    with report.catching():
        layout = find(root)
        report.about, classes = layout.about, layout.labels.classes
        split_problems = [line for split in layout.splits.values() for line in split.problems]
        report.problems += dict.fromkeys([*layout.problems, *split_problems, *layout.incomplete])
        report.splits = {split: _checked(report, layout, split) for split in layout.splits}
        shares = {split: found["class_percent"] for split, found in report.splits.items() if found["class_percent"]}
        met = {name for split in shares.values() for name, share in split.items() if share}
        absent = {split: ", ".join(name for name in classes if not found[name]) for split, found in shares.items()}
        report.warnings += [f"no label of {split} holds {names}" for split, names in absent.items() if names]
        if len(met) == 1 or (classes and not met and any(split["void_percent"] for split in report.splits.values())):
            held = f"every labelled pixel is {met.pop()!r}" if met else "no pixel belongs to a class"
            raise InputError(f"{root}: {held}; allowed: two classes or more (is one of them stored as void?)")
    return report


def _checked(report: CheckReport, layout: Layout, name: str) -> dict:
    """Return what a split holds, for JSON: shares of the classes in all class pixels, of void in these and void."""
    items, classes, volumes = layout.splits[name].items, layout.labels.classes, bool(layout.channels)
    nothing = "no voxel of any structure" if volumes else "all pixels are void"
    sizes, spacings, absent, counts, void = Counter(), Counter(), Counter(), np.zeros(VOID + 1, int), []
    for item in items:
        image, label, spacing = layout.read(item, report.catching)
        if image is not None:
            sizes[by(image.shape[1:])] += 1
            if not volumes and image.max() < DARK:
                report.warnings.append(f"{item.images[0]}: nearly black, its values end at {image.max()} of 255")
        if spacing is not None:
            spacings[by(spacing)] += 1
        if label is not None:
            present = np.bincount(np.ravel(label), minlength=VOID + 1)
            counts += present
            absent.update(name for name, count in zip(classes, present, strict=False) if not count)
            if not present[volumes:VOID].any():
                void.append(f"{item.label}: {nothing}")
    if not items and not layout.splits[name].problems:
        report.warnings.append(f"the split {name!r} is empty")
    if len(void) == len(items) > 1:  # a split that has no labels, such as Cityscapes' test
        void = [f"{name}: {nothing}, in all {len(items)} labels"]
    report.warnings += void
    pixels = counts[: len(classes)]
    labelled = pixels.sum()
    found = {
        "pairs": len(items),
        "sizes": dict(sorted(sizes.items())),
        "class_numbers": np.flatnonzero(counts).tolist(),
        "class_percent": dict(zip(classes, (100 * pixels / labelled).tolist(), strict=True)) if labelled else {},
        "void_percent": float(100 * counts[VOID] / max(counts.sum(), 1)),
    }
    return found | ({"spacings": dict(sorted(spacings.items())), "absent": dict(absent)} if volumes else {})

"""Look through a data set on disk before anything trains on it: every file is opened, and every bad one is named."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
from glamlib.errors import InputError, one_of

CHECKED = (*DATASETS, *VOLUMES)
WHOLE = "(no split)"  # the name under which images/ and labels/ in the root itself are reported
NO_FILES = SplitFiles(Path(), [], [], LabelCode.plain(1, None))


@dataclass
class CheckReport:
    """What `check_data` found: for each split the dict of `_found`, a line for each problem and each warning."""

    name: str
    path: str
    splits: dict[str, dict] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Turn an InputError into a problem."""
        try:
            yield
        except InputError as problem:
            self.problems.append(str(problem))

    def to_dict(self) -> dict:
        """Return the report as plain dicts, lists, numbers and strings, for JSON."""
        return asdict(self) | {"ok": self.ok}

    def render(self) -> str:
        """Return the report as text for a terminal."""
        lines = [f"{self.name} at {self.path}"]
        lines += [f"{name}: {split['pairs']} pairs; {_summary(split)}" for name, split in self.splits.items()]
        shares = pd.DataFrame({name: split["class_percent"] for name, split in self.splits.items()}, dtype=float)
        if len(shares):
            shares.loc["void, % of all"] = [split["void_percent"] for split in self.splits.values()]
            shares.columns.name = "% of class pixels"
            lines += ["", shares.to_string(float_format="{:.2f}".format, na_rep="-")]
        for what, found in (("problem", self.problems), ("warning", self.warnings)):
            lines += ["", f"{len(found)} {what}(s)", *(f"  {line}" for line in found)]
        # A file name that no terminal can print must not stop the report.
        return "\n".join(lines).encode(errors="backslashreplace").decode()


def _summary(split: dict) -> str:
    if "spacings" in split:
        absent = ", ".join(f"{name} ({count})" for name, count in split["absent"].items())
        sizes, spacings = _range(split["sizes"]), _range(split["spacings"])
        return f"voxels (depth x height x width): {sizes}; mm: {spacings}; absent (cases): {absent or 'none'}"
    sizes = ", ".join(f"{size} ({count})" for size, count in split["sizes"].items())
    values = ", ".join(map(str, split["label_values"]))
    return f"height x width: {sizes or 'none'}; label values: {values or 'none'}"


def _range(sizes: dict[str, int]) -> str:
    """Return the least and the largest of "a x b x c" axis by axis, as "a..A x b..B x c..C"."""
    axes = zip(*(size.split(" x ") for size in sizes), strict=True)
    ends = ((min(axis, key=float), max(axis, key=float)) for axis in axes)
    return " x ".join(low if low == high else f"{low}..{high}" for low, high in ends)


def _found(
    pairs: int, sizes: Counter[str], counts: np.ndarray, classes: tuple[str, ...], meaning: Mapping[int, int]
) -> dict:
    """Return what a split holds, for JSON: shares of the classes in all class pixels, of void in these and void.

    ``sizes`` counts images by size, ``counts`` (256,) pixels by label value, which ``meaning`` maps to a class or 255.
    """
    by_class = np.bincount(list(meaning.values()), counts[list(meaning)], minlength=VOID + 1)
    labelled, void = by_class[:VOID].sum(), by_class[VOID]
    percent = 100 * by_class / max(labelled, 1)
    return {
        "pairs": pairs,
        "sizes": dict(sorted(sizes.items())),
        "label_values": np.flatnonzero(counts).tolist(),
        "class_percent": dict(zip(classes, percent.tolist(), strict=False)) if labelled else {},
        "void_percent": float(100 * void / max(labelled + void, 1)),
    }


def check_data(name: str, path: str | PathLike[str]) -> CheckReport:
    """Open every file of the data set ``name``, one of `CHECKED`, below ``path`` and report what is there.

    A bad file becomes a problem, and the rest is read all the same. A published set is also held to its number of pairs
    or cases. Raises InputError only for an unknown name or a ``path`` that is no folder.
    """
    if name not in CHECKED:
        raise one_of("dataset to check", name, CHECKED)
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    report = CheckReport(name, str(root))
    if name in VOLUMES:
        with report.catching():
            _check_volumes(report, root)
    elif name in PUBLISHED:
        published = PUBLISHED[name]
        for split, expected in published.sizes.items():
            files = _check_split(report, split, published.classes, partial(published.find, root, split))
            lacking = published.missing(split, files.pairs)
            if files is not NO_FILES and (len(files.pairs) != expected or lacking):
                line = f"{files.images}: {len(files.pairs)} pairs; {published.title} {split} has {expected}"
                report.problems.append(f"{line}; missing: {lacking}" if lacking else line)
    else:
        _check_folder(report, root)
    return report


def _check_folder(report: CheckReport, root: Path) -> None:
    classes, code = (), LabelCode.plain(256, None)
    with report.catching():
        table = read_classes(root / "classes.json")
        classes, code = table.classes, LabelCode.plain(len(table.classes), table.ignore_index)
    splits = list_splits(root)
    if not splits or (root / "images").is_dir():
        splits = [WHOLE, *splits]
    for split in splits:
        folder = root if split == WHOLE else root / split
        _check_split(report, split, classes, partial(match_pairs, folder / "images", folder / "labels", code))
    met = {name for split in report.splits.values() for name, share in split["class_percent"].items() if share}
    if met and len(met) < len(classes):
        report.warnings.append(f"no label holds {', '.join(name for name in classes if name not in met)}")
    if len(met) == 1 and len(classes) > 1:
        report.problems.append(f"{root}: every labelled pixel is {met.pop()!r}; is its counterpart taken for void?")


def _check_split(
    report: CheckReport, name: str, classes: tuple[str, ...], find: Callable[[], SplitFiles]
) -> SplitFiles:
    """Add the split ``name`` to the report; return its files."""
    sizes, counts, files = Counter(), np.zeros(VOID + 1, int), NO_FILES
    with report.catching():
        files = find()
        report.problems += [f"{files.images}: {line}" for line in files.problems]
    for pair in files.pairs:
        image = values = None
        with report.catching():
            image = read_image(pair.image)
            sizes["{} x {}".format(*image.shape[1:])] += 1
        with report.catching():
            values = read_label_values(pair.label)
            counts += np.bincount(values.ravel(), minlength=VOID + 1)
            if (files.code.decode(pair.label, values) == VOID).all():
                report.warnings.append(f"{pair.label}: no labelled pixel, all are void")
        with report.catching():
            if image is not None and values is not None:
                pair.check_same_size(image, values)
    report.splits[name] = _found(len(files.pairs), sizes, counts, classes, files.code.meaning)
    return files


def _check_volumes(report: CheckReport, root: Path) -> None:
    volumes = VOLUMES[report.name]
    labels = brain_labels(sides=True) if report.name == "brains" else volumes.labels()
    layout = volumes.find(root)
    report.problems += [f"{layout.folder}: {line}" for line in layout.problems]
    if len(layout.cases) != volumes.num_cases:
        report.problems.append(f"{layout.folder}: {len(layout.cases)} cases; {report.name} has {volumes.num_cases}")
    for split, names in layout.splits.items():
        cases = [layout.cases[name] for name in names if name in layout.cases]
        sizes, spacings, absent, counts = Counter(), Counter(), Counter(), np.zeros(VOID + 1, int)
        for case in cases:
            with report.catching():
                _, label, spacing = case.read(labels)
                present = np.bincount(label.ravel(), minlength=VOID + 1)
                counts += present
                sizes[" x ".join(map(str, label.shape))] += 1
                spacings[" x ".join(f"{side:.3g}" for side in spacing)] += 1
                absent.update(name for name, count in zip(labels.classes, present, strict=False) if not count)
                if not label.any():
                    raise InputError(f"{case.label}: no voxel of any structure")
        meaning = {number: number for number in range(len(labels.classes))}
        found = report.splits[split] = _found(len(cases), sizes, counts, labels.classes, meaning)
        if spacings:
            found |= {"spacings": dict(sorted(spacings.items())), "absent": dict(absent)}

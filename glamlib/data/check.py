"""Look through a data set on disk before anything trains on it: every file is opened, and every bad one is named."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.data.datasets import DATASETS
from glamlib.data.images import ImageSet, LabelCode, Pair, read_image
from glamlib.data.transforms import VOID
from glamlib.data.volume_sets import VOLUMES, VolumeSet
from glamlib.errors import InputError, one_of

CHECKED = (*DATASETS, *VOLUMES)
DARK = 16  # of 255: what 12 bits in a file of 16 are read as


@dataclass
class CheckReport:
    """What `check_data` found: for each split the dict of `_found`, a line for each problem and each warning."""

    name: str
    path: str
    about: str = ""
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
        lines = [f"{self.name} at {self.path}", *filter(None, [self.about])]
        lines += [f"{name}: {split['pairs']} pairs; {_summary(split)}" for name, split in self.splits.items()]
        shares = pd.DataFrame({name: split["class_percent"] for name, split in self.splits.items()}, dtype=float)
        if len(shares):
            shares.loc["void, % of all"] = [split["void_percent"] for split in self.splits.values()]
            shares.columns.name = "% of class pixels"
            lines += ["", shares.to_string(float_format="{:.2f}".format, na_rep="-")]
        for what, found in (("problem", self.problems), ("warning", self.warnings)):
            lines += ["", f"{len(found)} {what}(s)", *(f"  {line}" for line in found)]
        return "\n".join(lines)

    def warn_of_absent(self, classes: tuple[str, ...]) -> set[str]:
        """Warn of classes that no label holds; return those that some label holds."""
        met = {name for split in self.splits.values() for name, share in split["class_percent"].items() if share}
        if met and len(met) < len(classes):
            self.warnings.append(f"no label holds {', '.join(name for name in classes if name not in met)}")
        return met


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


def _found(pairs: int, sizes: Counter[str], counts: np.ndarray, classes: tuple[str, ...], code: LabelCode) -> dict:
    """Return what a split holds, for JSON: shares of the classes in all class pixels, of void in these and void.

    ``sizes`` counts images by size, ``counts`` (256,) pixels by label value.
    """
    pixels, void = counts[list(code.values)], counts[list(code.void)].sum()
    labelled = pixels.sum()
    percent = 100 * pixels / max(labelled, 1)
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
            _check_volumes(report, VOLUMES[name], root)
    else:
        _check_images(report, DATASETS[name](root))
    return report


def _check_images(report: CheckReport, images: ImageSet) -> None:
    report.problems += images.problems
    report.about = images.about
    for name, expected in images.splits.items():
        pairs, code, sizes, counts = [], LabelCode(()), Counter(), np.zeros(VOID + 1, int)
        with report.catching():
            folder, pairs, problems, code = images.find(name)
            report.problems += [f"{folder}: {line}" for line in problems]
            if expected not in (None, len(pairs)):
                report.problems.append(f"{folder}: {len(pairs)} pairs; {images.title} {name} has {expected}")
            if not pairs:
                report.warnings.append(f"no images for the split {name!r}")
        void = [pair.label for pair in pairs if _is_void(report, pair, code, sizes, counts)]
        if len(void) == len(pairs) > 1:  # a split that has no labels, such as Cityscapes' test
            report.warnings.append(f"{folder}: all pixels of its {len(pairs)} labels are void")
        else:
            report.warnings += [f"{label}: all pixels are void" for label in void]
        report.splits[name] = _found(len(pairs), sizes, counts, images.classes, code)
    met = report.warn_of_absent(images.classes)
    if len(met) == 1 or (not met and any(split["void_percent"] for split in report.splits.values())):
        held = f"every labelled pixel is {met.pop()!r}" if met else "no pixel belongs to a class"
        report.problems.append(f"{report.path}: {held}; allowed: two classes or more (is one of them stored as void?)")


def _is_void(report: CheckReport, pair: Pair, code: LabelCode, sizes: Counter[str], counts: np.ndarray) -> bool:
    """Count a pair into sizes and label values, report its problems, and tell whether its label is all void."""
    image = values = classes = None
    with report.catching():
        image = read_image(pair.image)
        sizes["{} x {}".format(*image.shape[1:])] += 1
        if image.max() < DARK:
            report.warnings.append(f"{pair.image}: nearly black, its values end at {image.max()} of 255")
    with report.catching():
        values = code.read(pair.label)
        counts += np.bincount(values.ravel(), minlength=VOID + 1)
        classes = code.decode(pair.label, values)
    with report.catching():
        if image is not None and values is not None:
            pair.check_same_size(image, values)
    return classes is not None and bool((classes == VOID).all())


def _check_volumes(report: CheckReport, volumes: VolumeSet, root: Path) -> None:
    layout = volumes.find(root)
    labels = layout.labels
    report.problems += [f"{layout.folder}: {line}" for line in layout.problems]
    if volumes.num_cases not in (None, len(layout.cases)):
        report.problems.append(f"{layout.folder}: {len(layout.cases)} cases; {report.name} has {volumes.num_cases}")
    for split, names in layout.splits.items():
        cases = [layout.cases[name] for name in names if name in layout.cases]
        sizes, spacings, absent, counts = Counter(), Counter(), Counter(), np.zeros(VOID + 1, int)
        for case in cases:
            with report.catching():
                _, label, spacing = case.read(labels, len(layout.channels))
                present = np.bincount(label.ravel(), minlength=VOID + 1)
                counts += present
                sizes[" x ".join(map(str, label.shape))] += 1
                spacings[" x ".join(f"{side:.3g}" for side in spacing)] += 1
                absent.update(name for name, count in zip(labels.classes, present, strict=False) if not count)
                if not label.any():
                    report.warnings.append(f"{case.label}: no voxel of any structure")
        code = LabelCode(tuple(range(len(labels.classes))), (VOID,))
        found = report.splits[split] = _found(len(cases), sizes, counts, labels.classes, code)
        if spacings:
            found |= {"spacings": dict(sorted(spacings.items())), "absent": dict(absent)}
    report.warn_of_absent(labels.classes)

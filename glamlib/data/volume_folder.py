"""Folders of volumes: their files, the dataset.json of the Medical Segmentation Decathlon or of nnU-Net, splits.

Sources: http://medicaldecathlon.com; documentation/dataset_format.md of github.com/MIC-DKFZ/nnUNet, version 2.
"""

import json
import re
from collections import Counter
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from glamlib.data.images import NAMED
from glamlib.data.transforms import VOID
from glamlib.data.volumes import Case, Labels, Scale, read_grid
from glamlib.errors import InputError, one_of

SPLITS = ("train", "val", "test")
HELD_OUT = 0.15  # of the cases for each of val and test, where nothing else tells which


class Layout(NamedTuple):
    """What lies in a folder: that of the images; cases by name; names of each split's cases; a line for each file
    without a partner and each name without files; what labels and channels mean; what was taken for what."""

    folder: Path
    cases: dict[str, Case]
    splits: dict[str, list[str]]
    problems: list[str]
    labels: Labels
    channels: tuple[str, ...]
    about: str

    def chosen(self, split: str) -> tuple[Case, ...]:
        """Return a split's cases; InputError for an unknown split, or if there are problems."""
        if split not in self.splits:
            raise one_of("split", split, self.splits)
        if self.problems:
            listed = "; ".join([*self.problems[:NAMED], *["..."] * (len(self.problems) > NAMED)])
            raise InputError(f"{self.folder}: {len(self.problems)} problem(s): {listed}")
        return tuple(self.cases[name] for name in self.splits[split])


class Files(NamedTuple):
    """Where a set's files may lie: folders of images and labels, and patterns of their names without .nii or .nii.gz,
    whose first group names the case."""

    images: str
    labels: str
    image_name: str = "(.+)"
    label_name: str = "(.+)"

    def find(self, base: Path, table: "Table | None", problems: list[str]) -> dict[str, Case]:
        """Return the cases below a folder by name; what does not pair up becomes a line of ``problems``.

        The image of a label has its name, or that which ``table`` tells; nnU-Net's with _0000, _0001, ....
        """
        images, cases = by_case(base / self.images, self.image_name, problems), {}
        channels, told = (len(table.channels), table.images) if table else (1, {})
        for name, label in by_case(base / self.labels, self.label_name, problems).items():
            name = told.get(name, name)
            names = [name] if name in images else [f"{name}_{number:04}" for number in range(channels)]
            found = tuple(images.pop(each) for each in names if each in images)
            if len(found) == len(names):
                cases[name] = Case(name, found, label)
            else:
                problems.append(
                    f"label {label.name} has {f'{len(found)} of {channels} images' if found else 'no image'}"
                )
        problems += [f"image {path.name} has no label" for path in images.values()]
        return cases


def by_case(folder: Path, name: str, problems: list[str]) -> dict[str, Path]:
    """Return the NIfTI files of the expected name by case; a case's second file becomes a problem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        match = re.fullmatch(rf"{name}\.nii(\.gz)?", path.name)
        if match and match[1] in found:
            problems.append(f"{path.name} is the same case as {found[match[1]].name}")
        elif match:
            found[match[1]] = path
    return found


class Table(NamedTuple):
    """What a dataset.json tells; if it lists training cases, the name of the image of each label."""

    labels: Labels
    channels: tuple[str, ...]
    images: dict[str, str]

    def described(self) -> str:
        """Return what channels and labels were taken for, in words."""
        channels = ", ".join(f"{name} ({'CT' if name.upper() == 'CT' else 'as MR'})" for name in self.channels)
        names = dict(enumerate(self.labels.classes)) | {VOID: "ignored"}
        labels = ", ".join(f"{value} {names[number]}" for value, number in self.labels.numbers.items())
        return f"channels: {channels}; labels: {labels}" + "; left and right differ" * self.labels.sided


def read_table(path: Path) -> Table:
    """Read a dataset.json of the Decathlon or of nnU-Net; InputError for one that is neither, or has regions.

    The label named "ignore" is nnU-Net's: its voxels count nowhere. Classes are sided if one is called left or right.
    """
    try:
        table = json.loads(_read(path))
        if table.get("file_ending", ".nii") not in (".nii", ".nii.gz"):
            raise InputError(f"{path}: file_ending {table['file_ending']!r}; allowed: .nii.gz or .nii")
        names: dict[int, str] = {}
        for pair in table["labels"].items():
            if isinstance(pair[1], list):
                raise InputError(f"{path}: label {pair[0]!r} is a region, {pair[1]}; allowed: one value for each label")
            # {"1": "name"} in the Decathlon's, {"name": 1} in nnU-Net's
            name, value = pair if isinstance(pair[1], int) else reversed(pair)
            if int(value) in names or name in names.values():
                raise InputError(f"{path}: label {name!r}, {value}, is there twice")
            names[int(value)] = name
        channels = table.get("channel_names") or table["modality"]
        channels = [channels[key] for key in sorted(channels, key=int)]
        training = [
            (_stem(case["image"]), _stem(case.get("label", case["image"]))) for case in table.get("training", ())
        ]
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise InputError(f"{path}: not a dataset.json of the Decathlon or of nnU-Net ({reason})") from None
    ignored = {value: VOID for value, name in names.items() if name.lower() == "ignore"}
    values = sorted(names.keys() - ignored, key=lambda value: (value != 0, value))
    if 0 not in values or not 2 <= len(values) <= VOID:
        raise InputError(
            f"{path}: its labels are {sorted(names)}; allowed: 0, the background, and 1 to {VOID - 1} more"
        )
    sided = any(re.search(r"(?<![a-z])(left|right|[lr]h?)(?![a-z])", name.lower()) for name in names.values())
    numbers = {value: number for number, value in enumerate(values)} | ignored
    return Table(
        Labels(tuple(names[value] for value in values), numbers, sided),
        tuple(map(str, channels)),
        {label: image for image, label in training},
    )


def listed_splits(root: Path) -> tuple[dict[str, list[str]], str]:
    """Return the names in SPLIT.txt, one a line, or in the first fold of nnU-Net's splits_final.json; and which."""
    paths = {split: path for split in SPLITS if (path := root / f"{split}.txt").is_file()}
    lines = {split: map(str.strip, _read(path).splitlines()) for split, path in paths.items()}
    folds = root / "splits_final.json"
    if paths or not folds.is_file():
        return {split: [_stem(line) for line in names if line] for split, names in lines.items()}, "its list"
    try:
        return {split: list(map(str, json.loads(_read(folds))[0][split])) for split in SPLITS[:2]}, "the first fold"
    except (ValueError, TypeError, KeyError, IndexError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise InputError(f"{folds}: not a list of nnU-Net's folds of train and val ({reason})") from None


def own_splits(
    root: Path, cases: dict[str, Case], table: Table, problems: list[str]
) -> tuple[dict[str, list[str]], str]:
    """Return train, val and test, and where each is from in words; the cases of labelsTs/ are added to ``cases``.

    They are told by labelsTs/ and `listed_splits`. Train is what no other split has. A val or a test that nothing tells
    is drawn from train, by the names alone.
    """
    splits, origin = listed_splits(root)
    origins, count = dict.fromkeys(splits, origin), max(1, round(HELD_OUT * len(cases)))
    others = set(chain(*splits.values()))
    train = splits.get("train") or [name for name in cases if name not in others]
    if (root / "labelsTs").is_dir():
        tested = Files("imagesTs", "labelsTs").find(root, table, problems)
        problems += [f"{name} is in labelsTr and in labelsTs" for name in tested if name in cases]
        cases |= tested
        splits["test"], origins["test"] = list(tested), "labelsTs"
    drawn = [sorted(train)[place] for place in np.random.default_rng(0).permutation(len(train))]
    for split in SPLITS[1:]:
        if split not in splits:
            splits[split], drawn, origins[split] = sorted(drawn[:count]), drawn[count:], "held out by seed 0"
    splits = {"train": [name for name in train if name in drawn], "val": splits["val"], "test": splits["test"]}
    problems += [
        f"too few labelled cases, {len(train)}: none is left for {name}" for name in SPLITS if not splits[name]
    ]
    return splits, ", ".join(f"{len(splits[name])} {name} ({origins.get(name, 'the rest')})" for name in SPLITS)


def misfits(splits: dict[str, list[str]], cases: dict[str, Case]) -> list[str]:
    """Return a line for each name in the splits that has no files or is there twice."""
    lines = [f"{split}: no image and label of {n}" for split, names in splits.items() for n in names if n not in cases]
    times = Counter(chain(*splits.values()))
    return lines + [f"{name} is in the splits {count} times" for name, count in times.items() if count > 1]


def statistics(cases: tuple[Case, ...], labels: Labels, channels: tuple[str, ...]) -> dict[str, object]:
    """Return the spacing and the scales that `Preprocessing` takes, from training cases.

    The spacing is the median of each axis. Channels called CT are normalised as nnU-Net does, by the 0.5 and 99.5
    percentiles, mean and deviation of the structures' voxels (at most 10,000 a case), other channels by `z_score`.
    """
    spacing = np.median([read_grid(case.images[0])[1] for case in cases], axis=0)
    ct = [name.upper() == "CT" for name in channels]
    scales = _structures(tuple((c, c.images[0].stat().st_mtime_ns) for c in cases), labels, len(ct)) if any(ct) else ct
    return {
        "spacing": tuple(spacing.tolist()),
        "scales": tuple(scale if is_ct else None for scale, is_ct in zip(scales, ct, strict=True)),
    }


@lru_cache(maxsize=2)
def _structures(cases: tuple[tuple[Case, int], ...], labels: Labels, channels: int) -> list[Scale]:
    """Return a scale for each channel of cases, which come with their times of change."""
    rng, samples = np.random.default_rng(0), []
    for case, _ in tqdm(cases, disable=None, desc="CT intensities", unit="case"):
        image, label, _ = case.read(labels, channels)
        inside = image[:, (label > 0) & (label < VOID)]  # (C, voxels)
        samples.append(rng.choice(inside, min(10_000, inside.shape[1]), replace=False, axis=1))
    voxels = np.concatenate(samples, axis=1).astype(np.float64)
    if not voxels.size:
        raise InputError(f"{cases[0][0].label} and {len(cases) - 1} more: no voxel of any structure")
    low, high = np.percentile(voxels, (0.5, 99.5), axis=1)
    return np.stack([low, high, voxels.mean(1), voxels.std(1) + 1e-8], axis=1).tolist()


def _stem(path: str) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", Path(path).name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as text ({problem})") from problem

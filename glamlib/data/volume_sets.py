"""Data sets of volumes: where their files lie, what their labels mean, how their values are normalised.

Three are known by name; one's own are `volumes`, a folder with a dataset.json of the Medical Segmentation Decathlon or
of nnU-Net (documentation/dataset_format.md of github.com/MIC-DKFZ/nnUNet, version 2).
- Hippocampus: MR crops, Task04 of the Decathlon (Antonelli et al., Nature Communications 2022; CC BY-SA 4.0).
- Brains: skull-stripped T1 volumes of MICCAI 2012's Multi-Atlas Labeling challenge (CC BY-NC): MRI of OASIS (Marcus et
al., Journal of Cognitive Neuroscience 2007), labels by Neuromorphometrics, Inc. Beware: the skull was stripped with the
labels, so the image gives brain against background away; score structures only. Five test subjects were scanned twice
(1003/1023, 1004/1024, 1005/1025, 1018/1038, 1019/1039).
- Synapse: abdominal CT, the training part of "Beyond the Cranial Vault" (BCV, BTCV; Landman et al., MICCAI 2015), with
the splits and the 8 organs of TransUNet (Chen et al. 2021). No other cases are labelled: choose nothing on "test".
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from glamlib.data.layout import Files, Item, Labels, Layout, Split, listed, nfc, pair, reading, sided, three_splits
from glamlib.data.transforms import VOID
from glamlib.data.volumes import FileVolumes, Preprocessing, Scale, Spacing, read_case, read_grid
from glamlib.errors import InputError

ENDS = (".nii.gz", ".nii")
BRAIN_TRAIN = tuple(f"10{n:02}" for n in (0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 36))  # the challenge's
# Of Task04's training cases, as the labels of its test cases are not public
HIPPOCAMPUS_VAL = frozenset(Path(__file__).with_name("hippocampus_val.csv").read_text().split())
SYNAPSE_TEST = ("0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038")
SYNAPSE_TRAIN = tuple(name for n in (*range(1, 11), *range(21, 41)) if (name := f"{n:04}") not in SYNAPSE_TEST)
# Soft tissue, -175..250 HU, to -1..1; the range of MONAI's BTCV recipes (Tang et al., Swin UNETR, CVPR 2022)
SOFT_TISSUE = (-175.0, 250.0, 37.5, 212.5)


def _labels(name: str, sided: bool) -> Labels:
    """Return labels whose classes are numbered as they appear in volume_labels.csv."""
    rows = pd.read_csv(Path(__file__).with_name("volume_labels.csv"), index_col="set").loc[name]
    numbers, classes = pd.factorize(rows["structure"])
    return Labels(tuple(classes), dict(zip(rows["value"].tolist(), numbers.tolist(), strict=True)), sided)


def brain_labels(*, sides: bool = False) -> Labels:
    """Return 13 groups of structures, or, with ``sides``, 12 pairs of right and left and the brain stem.

    The cerebellar vermis belongs to the cerebellar cortex; it has no side, so with ``sides`` it is background, as are
    ventricles and fluid of the middle, vessels, and parts that were not labelled in every subject.
    """
    return _labels("brains_sided" if sides else "brains", sides)


def synapse_labels(*, organs: Literal[13, 8] = 13) -> Labels:
    """Return the 13 organs in the files' order, or the 8 of TransUNet in its order, the other five as background.

    The classes have sides, and so has the body: the liver lies on the right.
    """
    return _labels(f"synapse_{organs}", sided=True)


def _read_table(path: Path) -> tuple[Labels, tuple[str, ...], dict[str, str]]:
    """Return the labels, the channels' names and, of listed cases, the image's name by the label's.

    The label named "ignore" is nnU-Net's: its voxels count nowhere. They are sided by their names.
    """
    with reading(path, "a dataset.json of the Decathlon or of nnU-Net"):
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        if table.get("file_ending", ".nii") not in ENDS:
            raise ValueError(f"file_ending {table['file_ending']!r}; allowed: .nii.gz or .nii")
        if regions := [name for name, value in table["labels"].items() if isinstance(value, list)]:
            raise ValueError(f"label {regions[0]!r} is a region; allowed: one value for each label")
        # {"1": "name"} in the Decathlon's, {"name": 1} in nnU-Net's
        pairs = [
            (value, name) if isinstance(value, int) or not name.strip(" -").isdigit() else (name, value)
            for name, value in table["labels"].items()
        ]
        names = {int(value): name for value, name in pairs}
        ignored = {value: VOID for value, name in names.items() if name.lower() == "ignore"}
        values = sorted(names.keys() - ignored, key=lambda value: (value != 0, value))
        if 0 not in values or not 2 <= len(values) <= VOID or len(set(names.values())) < len(table["labels"]):
            have = ", ".join(f"{value} {name!r}" for value, name in pairs)
            allowed = f"0, the background, and 1 to {VOID - 1} more, each with a name of its own"
            raise ValueError(f"its labels are {have}; allowed: {allowed}")
        if not (channels := table.get("channel_names") or table.get("modality")):
            raise KeyError("channel_names")
        channels = tuple(str(channels[key]) for key in sorted(channels, key=int))
        cases = [(case["image"], case.get("label", case["image"])) for case in table.get("training", ())]
        told = {_stem(label): _stem(image) for image, label in cases}
    numbers = {value: number for number, value in enumerate(values)} | ignored
    return Labels(tuple(names[value] for value in values), numbers, sided(names.values())), channels, told


def _stem(path: str) -> str:
    return nfc(re.sub(r"\.nii(\.gz)?$", "", Path(path).name))


@lru_cache(maxsize=2)
def statistics(items: tuple[tuple[Item, int], ...], labels: Labels, channels: tuple[str, ...]) -> dict[str, tuple]:
    """Return the spacing and the scales that `Preprocessing` takes, from training cases and their times of change.

    The spacing is the median of each axis. Channels called CT are normalised as nnU-Net does, by the 0.5 and 99.5
    percentiles, mean and deviation of the structures' voxels (at most 10,000 a case), other channels as MR.
    """
    spacing = np.median([read_grid(item.images[0])[1] for item, _ in items], axis=0)
    is_ct, rng, samples = [name.upper() == "CT" for name in channels], np.random.default_rng(0), []
    for item, _ in tqdm(items if any(is_ct) else (), disable=None, desc="CT intensities", unit="case"):
        image, label, _ = read_case(labels, len(channels), item)
        inside = image[:, (label > 0) & (label < VOID)].astype(np.float64)  # (C, voxels)
        samples.append(rng.choice(inside, min(10_000, inside.shape[1]), replace=False, axis=1))
    scales = [None] * len(channels)
    if samples:
        voxels = np.concatenate(samples, axis=1)
        if not voxels.size:
            raise InputError(f"{items[0][0].label} and {len(items) - 1} more: no voxel of any structure")
        low, high = np.percentile(voxels, (0.5, 99.5), axis=1)
        scales = np.stack([low, high, voxels.mean(1), voxels.std(1) + 1e-8], axis=1).tolist()
    return {
        "spacing": tuple(spacing.tolist()),
        "scales": tuple(scale if ct else None for scale, ct in zip(scales, is_ct, strict=True)),
    }


@dataclass(frozen=True)
class VolumeSet:
    """A data set of volumes; by default one's own, of which the folder itself tells all that the attributes tell.

    Of one's own there are always the splits train, val and test (`three_splits`), the last from labelsTs/ if there is
    one. They are normalised and resampled as `statistics` says.
    """

    title: str = "volumes"
    source: str = "dataset.json, imagesTr/ and labelsTr/ as in the Medical Segmentation Decathlon or nnU-Net"
    num_cases: int = 0
    # Folders of images and labels with patterns of their names; the first that are there, in one of the bases, count
    files: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = ()
    bases: tuple[str, ...] = ("",)
    split: Callable[[list[str]], dict[str, list[str]]] | None = None  # all names, unless there are lists
    labels: Callable[..., Labels] = _read_table  # its keyword-only arguments are options of the set
    scale: Scale | None = None  # as in `Preprocessing`, unless told otherwise
    spacing: Spacing | None = None

    def open(
        self,
        root: Path,
        split: str,
        *,
        spacing: Spacing | Literal["usual"] | None = "usual",
        scales: tuple[Scale | None, ...] | Literal["usual"] = "usual",
        **options: object,
    ) -> FileVolumes:
        """Return a split; ``spacing`` (None: each file's own) and ``scales`` are as in `Preprocessing`.

        Raises InputError for an unknown split, and for data that are missing or malformed.
        """
        layout = self.find(root, **options)
        usual = {"spacing": self.spacing, "scales": (self.scale,)}
        if not self.files and "usual" in (spacing, scales):
            items = tuple((item, item.images[0].stat().st_mtime_ns) for item in layout.chosen("train"))
            usual = statistics(items, layout.labels, layout.channels)
        given = {name: value for name, value in (("spacing", spacing), ("scales", scales)) if value != "usual"}
        preprocessing = Preprocessing(layout.labels.values, **usual | given)
        if len(preprocessing.scales) != len(layout.channels):
            raise InputError(f"{root}: channels {layout.channels}; scales={preprocessing.scales} must be one for each")
        return FileVolumes(layout, split, preprocessing)

    def find(self, root: Path, **options: object) -> Layout:
        """Describe a folder, of which no volume is opened; InputError where there are none of the expected names."""
        if not self.files and (root / "dataset.json").is_file():
            return _own(root)
        for base, files in product(self.bases, self.files):
            pairs = pair(*(Files(root / base / folder, ENDS, name) for folder, name in files))
            if pairs.items:
                break
        else:
            raise InputError(f"{root}: no volumes of the expected names; expected {self.source}")
        labels, count = self.labels(**options), len(pairs.items)
        splits = listed(root / base, pairs, self.split([item.name for item in pairs.items]))
        incomplete = [f"{root}: {count} cases; {self.title} has {self.num_cases}"] if count != self.num_cases else []
        held_out, train = splits["train"].items[4::5], splits["train"]
        fit = [item for item in train.items if item not in held_out]
        subsets = {"fit": train._replace(items=fit), "held_out": train._replace(items=held_out)}
        read = partial(read_case, labels, 1)
        return Layout(self.title, labels, splits, read, subsets=subsets, incomplete=incomplete, channels=("MR",))


def _own(root: Path) -> Layout:
    """Describe a folder with a dataset.json."""
    labels, channels, told = _read_table(root / "dataset.json")
    found = {
        split: pair(Files(root / f"images{end}", ENDS), Files(root / f"labels{end}", ENDS), len(channels), told)
        for split, end in (("train", "Tr"), ("test", "Ts"))
        if (root / f"labels{end}").is_dir()  # else there may be images alone, to be predicted
    }
    if train := found.get("train"):
        names = {item.name for item in train.items}
        train.problems.extend(f"{root}: {n} is in dataset.json and not here" for n in told.values() if n not in names)
        test = found.get("test", Split([], []))
        test.problems.extend(f"{item.label} is in labelsTr, too" for item in test.items if item.name in names)
        found = (listed(root, train) or {"train": train}) | ({"test": test} if "test" in found else {})
    splits, about = three_splits(found)
    kinds = [f"{name} ({'CT' if name.upper() == 'CT' else 'as MR'})" for name in channels]
    meanings = dict(enumerate(labels.classes)) | {VOID: "ignored"}
    values = [f"{value} {meanings[number]}" for value, number in labels.numbers.items()]
    about += f"; channels: {', '.join(kinds)}; labels: {', '.join(values)}" + "; left and right differ" * labels.sided
    read, unions = partial(read_case, labels, len(channels)), {"all": tuple(splits)}
    return Layout("volumes", labels, splits, read, unions, about=about, channels=channels)


_SETS = (
    VolumeSet(
        title="hippocampus",
        source="Task04_Hippocampus of the Medical Segmentation Decathlon, http://medicaldecathlon.com",
        num_cases=260,
        files=((("imagesTr", r"(hippocampus_\d+)"), ("labelsTr", r"(hippocampus_\d+)")),),
        bases=("", "Task04_Hippocampus"),
        split=lambda names: {"train": sorted({*names} - HIPPOCAMPUS_VAL), "val": sorted({*names} & HIPPOCAMPUS_VAL)},
        labels=partial(_labels, "hippocampus", False),
    ),
    VolumeSet(
        title="brains",
        source="inst/extdata of https://github.com/muschellij2/malf.templates",
        num_cases=35,
        files=((("images", r"(\d+)"), ("labels", r"(\d+)")), (("", r"(\d+)_SS"), ("", r"(\d+)_glm"))),
        split=lambda names: {"train": list(BRAIN_TRAIN), "test": [n for n in names if n not in BRAIN_TRAIN]},
        labels=brain_labels,
    ),
    # Either as unpacked, or as the Decathlon's programs want it: img0001.nii.gz, BCV_0001.nii.gz, BCV_0001_0000.nii.gz.
    # The files' own spacings differ, from 2.5 x 0.6 x 0.6 to 5 x 1 x 1 mm; these are those of MONAI's recipes.
    VolumeSet(
        title="synapse",
        source="Abdomen/RawData.zip of https://www.synapse.org/Synapse:syn3193805 (registration needed)",
        num_cases=30,
        files=tuple(
            ((images, r"[A-Za-z_]*(\d{4}(?:_0000)?)"), (labels, r"[A-Za-z_]*(\d{4})"))
            for images, labels in (("img", "label"), ("imagesTr", "labelsTr"))
        ),
        bases=("", "Training", "RawData/Training", "RawData"),
        split=lambda names: {"train": list(SYNAPSE_TRAIN), "test": list(SYNAPSE_TEST)},
        labels=synapse_labels,
        scale=SOFT_TISSUE,
        spacing=(2.0, 1.5, 1.5),
    ),
    VolumeSet(),
)
VOLUMES = {volumes.title: volumes for volumes in _SETS}

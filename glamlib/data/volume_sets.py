"""Data sets of volumes: where their files lie, what their labels mean, how their values are normalised.

Three are known by name; one's own are `volumes`: see `volume_folder`.

Hippocampus: 260 MR crops of about 35 x 50 x 36 voxels of 1 mm, anterior and posterior part labelled. Medical
Segmentation Decathlon, Task04, training part (http://medicaldecathlon.com; Antonelli et al., Nature
Communications 2022; CC BY-SA 4.0).

Brains: 35 skull-stripped T1 volumes of about 160 x 200 x 165 voxels of 1 mm. MICCAI 2012 Grand Challenge on Multi-Atlas
Labeling, as packaged in https://github.com/muschellij2/malf.templates, inst/extdata (CC BY-NC): MRI of the OASIS
project (Marcus et al., Journal of Cognitive Neuroscience 2007), labels by Neuromorphometrics, Inc. Beware: the skull
was stripped with the labels, so the image gives brain against background away; score structures only. Five test
subjects were scanned twice (1003/1023, 1004/1024, 1005/1025, 1018/1038, 1019/1039).

Synapse: 30 abdominal CT volumes with 13 organs, the training part of "Beyond the Cranial Vault" (BCV, also BTCV),
https://www.synapse.org/Synapse:syn3193805 (registration needed); Landman et al., MICCAI 2015. The split into 18 and 12
cases and the choice of 8 organs are TransUNet's (Chen et al. 2021). No other cases are labelled: choose nothing on
"test".
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from glamlib.data.volume_folder import Files, Layout, listed_splits, misfits, own_splits, read_table, statistics
from glamlib.data.volumes import FileVolumes, Labels, Preprocessing, Scale, Spacing
from glamlib.errors import InputError, check_options

BRAIN_TRAIN = tuple(f"10{n:02}" for n in (0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 36))  # the challenge's

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland"),
)
EIGHT = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
SYNAPSE_TEST = ("0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038")
SYNAPSE_TRAIN = tuple(name for n in (*range(1, 11), *range(21, 41)) if (name := f"{n:04}") not in SYNAPSE_TEST)
# Soft tissue, -175..250 HU, to -1..1; the range of MONAI's BTCV recipes (Tang et al., Swin UNETR, CVPR 2022)
SOFT_TISSUE = (-175.0, 250.0, 37.5, 212.5)


def hippocampus_labels() -> Labels:
    """Return background, anterior and posterior part."""
    return Labels(("background", "anterior", "posterior"), {0: 0, 1: 1, 2: 2}, sided=False)


def brain_labels(*, sides: bool = False) -> Labels:
    """Return 13 groups of structures, or, with ``sides``, 12 pairs of right and left and the brain stem.

    The cerebellar vermis belongs to the cerebellar cortex; it has no side, so with ``sides`` it is background, as are
    ventricles and fluid of the middle, vessels, and parts that were not labelled in every subject.
    """
    table = pd.read_csv(Path(__file__).with_name("brain_labels.csv"), index_col="value")
    numbers, classes = pd.factorize(table["sided_structure" if sides else "structure"])
    return Labels(tuple(classes), dict(zip(table.index.tolist(), numbers.tolist(), strict=True)), sides)


def synapse_labels(*, organs: Literal[13, 8] = 13) -> Labels:
    """Return the 13 organs in the files' order, or the 8 of TransUNet in its order, the other five as background.

    The classes have sides, and so has the body: the liver lies on the right.
    """
    chosen = {13: ORGANS, 8: EIGHT}[organs]
    numbers = {value: chosen.index(organ) + 1 if organ in chosen else 0 for value, organ in enumerate(ORGANS, start=1)}
    return Labels(("background", *chosen), {0: 0} | numbers, sided=True)


@dataclass(frozen=True)
class Options:
    """Options of every set: ``spacing`` (None: each file's own) and ``scales`` as in `Preprocessing`."""

    spacing: Spacing | None = None
    scales: tuple[Scale | None, ...] = (None,)


@dataclass(frozen=True)
class VolumeSet:
    """A data set of volumes; by default one's own, of which the folder itself tells all that the attributes tell.

    Of one's own there are always the splits train, val and test (`own_splits`). They are normalised and resampled as
    `statistics` says.

    Attributes:
        source, num_cases: where to get it, and how many it has.
        files, bases: where they may lie, and sub-folders in which to look for them; the first that are there count.
        split: the names of each split's cases, of all names; unless there are lists SPLIT.txt.
        labels: what the values mean; its keyword arguments are options of the set.
        scale, spacing: as in `Preprocessing`, unless told otherwise.
    """

    source: str = "dataset.json, imagesTr/ and labelsTr/ as in the Medical Segmentation Decathlon or nnU-Net"
    num_cases: int | None = None
    files: tuple[Files, ...] = (Files("imagesTr", "labelsTr"),)
    bases: tuple[str, ...] = ("",)
    split: Callable[[list[str]], dict[str, list[str]]] = lambda names: {}
    labels: Callable[..., Labels] | None = None
    scale: Scale | None = None
    spacing: Spacing | None = None

    @property
    def options(self) -> tuple[Callable, ...]:
        """What takes the set's options, for `check_options`."""
        return (Options, self.labels) if self.labels else (Options,)

    def open(self, root: Path, split: str, **options: object) -> FileVolumes:
        """Return a split; InputError for an unknown split or option, and for data that are missing or malformed."""
        options = check_options("option of volumes", options, *self.options)
        layout = self.find(root)
        cases, train = layout.chosen(split), layout.chosen("train")
        given = {name: options.pop(name) for name in ("spacing", "scales") if name in options}
        if self.labels:
            labels, usual = self.labels(**options), {"spacing": self.spacing, "scales": (self.scale,)}
        else:
            labels = layout.labels
            usual = {} if len(given) == 2 else statistics(train, labels, layout.channels)
        preprocessing = Preprocessing(labels.values, **usual | given)
        if len(preprocessing.scales) != len(layout.channels):
            raise InputError(f"option of volumes scales={given['scales']}: must be one for each of {layout.channels}")
        return FileVolumes(cases, labels, preprocessing, layout.about)

    def find(self, root: Path) -> Layout:
        """Look through a folder, without opening a volume; InputError where there are none of the expected names."""
        for base, files in ((root / base, files) for base in self.bases for files in self.files):
            told = not self.labels and (base / "dataset.json").is_file()
            table, problems = read_table(base / "dataset.json") if told else None, []
            cases = files.find(base, table, problems)
            if (cases or problems) and (table or self.labels):
                break
        else:
            raise InputError(f"{root}: no volumes of the expected names; expected {self.source}")
        if table:
            lacking = [image for image in table.images.values() if image not in cases]
            problems += [f"{name} is in dataset.json and not here" for name in lacking]
            splits, origins = own_splits(base, cases, table, problems)
            labels, channels, about = table.labels, table.channels, f"{origins}; {table.described()}"
        else:
            splits = listed_splits(base)[0] or self.split(list(cases))
            labels, channels, about = self.labels(), ("MR",), ""
        return Layout(base / files.images, cases, splits, problems + misfits(splits, cases), labels, channels, about)


VOLUMES = {
    "hippocampus": VolumeSet(
        source="Task04_Hippocampus of the Medical Segmentation Decathlon, http://medicaldecathlon.com",
        num_cases=260,
        files=(Files("imagesTr", "labelsTr", r"(hippocampus_\d+)", r"(hippocampus_\d+)"),),
        bases=("", "Task04_Hippocampus"),
        split=lambda names: {"train": [n for i, n in enumerate(names) if i % 5 != 4], "val": names[4::5]},
        labels=hippocampus_labels,
    ),
    "brains": VolumeSet(
        source="inst/extdata of https://github.com/muschellij2/malf.templates",
        num_cases=35,
        files=(Files("images", "labels", r"(\d+)", r"(\d+)"), Files("", "", r"(\d+)_SS", r"(\d+)_glm")),
        split=lambda names: {"train": list(BRAIN_TRAIN), "test": [n for n in names if n not in BRAIN_TRAIN]},
        labels=brain_labels,
    ),
    # Either as unpacked, or as the Decathlon's programs want it: img0001.nii.gz, BCV_0001.nii.gz, BCV_0001_0000.nii.gz.
    # The files' own spacings differ, from 2.5 x 0.6 x 0.6 to 5 x 1 x 1 mm; these are those of MONAI's recipes.
    "synapse": VolumeSet(
        source="Abdomen/RawData.zip of https://www.synapse.org/Synapse:syn3193805 (registration needed)",
        num_cases=30,
        files=tuple(
            Files(images, labels, r"[A-Za-z_]*(\d{4}(?:_0000)?)", r"[A-Za-z_]*(\d{4})")
            for images, labels in (("img", "label"), ("imagesTr", "labelsTr"))
        ),
        bases=("", "Training", "RawData/Training", "RawData"),
        split=lambda names: {"train": list(SYNAPSE_TRAIN), "test": list(SYNAPSE_TEST)},
        labels=synapse_labels,
        scale=SOFT_TISSUE,
        spacing=(2.0, 1.5, 1.5),
    ),
    "volumes": VolumeSet(),
}

"""The data of a run: what its parameters name, loaded and, unless they are too many, held in memory."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glamlib.data.datasets import DATASETS, VOLUMES, InMemory, SegmentationDataset, load_dataset, load_volumes, survey
from glamlib.data.layout import by
from glamlib.data.scenes import CueScenes, CueVolumeConfig, CueVolumes, LegendConfig, SceneConfig
from glamlib.data.volume_sets import Options
from glamlib.errors import InputError, Natural, check_options, lookup
from glamlib.evaluation.processes import is_main
from glamlib.studies.parameters import Count, RunParameters, Sides

AnyDataset = SegmentationDataset  # of volumes, too
Parts = dict[str, AnyDataset]  # "train", "test" and, where the run validates, "val"

PARTS = ("train", "val", "test")
TEST_SEED = 1_000_000_007  # of generated test data, the same for every run; the next one of validation data
GENERATED = {
    "scenes": (CueScenes, SceneConfig),
    "cue_volumes": (CueVolumes, CueVolumeConfig),
    "legend_scenes": (CueScenes, LegendConfig),
}
VOLUME_DATA = ("cue_volumes", *VOLUMES)


@dataclass(frozen=True)
class Drawn:
    """Options of generated data, beside those of their configuration: how many items are drawn."""

    train: Count
    test: Count
    val: Natural = 0


@dataclass(frozen=True)
class Files:
    """Options of all data on disk."""

    train: str  # names of splits
    test: str
    val: str = ""
    limit: Count | None = None  # of a split, only so many first items
    in_memory: bool = True  # read once


@dataclass(frozen=True)
class ImageFiles(Files):
    """Also that images are trained and predicted at a [height, width]; one's own are scored at the labels' size."""

    size: Sides | None = None


OPTIONS = (  # what takes the options of each data set
    {name: (Drawn, config) for name, (_, config) in GENERATED.items()}
    | dict.fromkeys(DATASETS, (ImageFiles,))
    | {name: (Files, Options, volumes.labels) for name, volumes in VOLUMES.items()}
)


def data_options(run: RunParameters) -> dict[str, object]:
    """Return the options ``run.data``, checked against the annotations of what takes them; InputError for bad ones."""
    options = check_options("option of data", run.data, *lookup("dataset", run.dataset, OPTIONS))
    if run.dataset in GENERATED:
        GENERATED[run.dataset][1](**{name: options[name] for name in options if name not in PARTS})  # its ranges
        if run.root:
            raise InputError(f"parameter root={run.root!r}: must be empty, because {run.dataset} are drawn")
    return options


def run_data(run: RunParameters, part: Literal["train", "val", "test"]) -> AnyDataset:
    """Return the training, validation or test data of a run.

    All images are read once, and it is printed where those of one's own were found and which classes none of the
    training labels holds. InputError for bad options, data that are not there, a bad file, and training images of
    several sizes that are neither resized nor cropped.
    """
    options = data_options(run)
    split, seed = {name: options.pop(name, "") for name in PARTS}[part], {"train": run.seed, "test": TEST_SEED}
    if not split:
        raise InputError(f"missing option of data: {part}")
    if run.dataset in GENERATED:
        make, config_class = GENERATED[run.dataset]
        data = make(config_class(**options), split, seed.get(part, TEST_SEED + 1))
        if part != "train":
            return data
        data = InMemory(data, workers=run.workers)
    else:
        data = _files(run, part, split, options)
    absent, sizes = survey(data)
    if part != "train":
        return data
    if is_main() and absent:
        print(f"warning: no training label holds {', '.join(absent)}")
    if len(sizes) > 1 and not run.augment:
        have = f"{by(min(sizes))} and {by(max(sizes))}"
        raise InputError(f"option of augment crop_size, or of data size: one is needed, because images differ: {have}")
    return data


def _files(run: RunParameters, part: str, split: str, options: dict[str, object]) -> AnyDataset:
    limit, in_memory = options.pop("limit", None), options.pop("in_memory", True)
    if run.dataset in VOLUMES:
        data = load_volumes(run.dataset, split, root=run.root or None, **options)
        data.original_labels = part != "train"  # scores are of the voxels of the label files
    else:
        if run.dataset == "folder" and part != "train":
            options.pop("size", None)
            in_memory = False  # at their own size they are large, and they are read once
        data = load_dataset(run.dataset, split, root=run.root or None, **options)
    data.items = data.items[:limit]
    if part == "train" and is_main() and data.about:
        print(data.about)
    return InMemory(data, workers=run.workers) if in_memory else data


def run_parts(run: RunParameters) -> Parts:
    """Return all data of a run by their part: see `run_data`."""
    return {part: run_data(run, part) for part in PARTS if part != "val" or run.validate_every}


def data_identity(dataset: AnyDataset) -> dict[str, object]:
    """Return what tells a data set from another of the same name: how many items, and a digest.

    It is of classes, names and contents: of all items that are held in memory, else of 64 that are evenly spaced, and
    of the sizes of all files.
    """
    count = len(dataset)
    chosen = range(count) if isinstance(dataset, InMemory) else np.linspace(0, count - 1, min(count, 64)).astype(int)
    sizes = [file.stat().st_size for item in getattr(dataset, "items", ()) for file in (*item.images, item.label)]
    digest = hashlib.sha256()
    digest.update(json.dumps([dataset.classes, [dataset.name(index) for index in range(count)], sizes]).encode())
    for index in chosen:
        for tensor in dataset[int(index)]:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy())
    return {"items": count, "digest": digest.hexdigest()[:16]}

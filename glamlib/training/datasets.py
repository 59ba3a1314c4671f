"""The data of a run: what its parameters name, loaded and, unless they are too many, held in memory."""

import hashlib
import json
import sys
from typing import Literal

import numpy as np

from glamlib.data.datasets import DATASETS, VOLUMES, InMemory, SegmentationDataset, load_dataset, load_volumes, survey
from glamlib.data.images import ImageFiles
from glamlib.data.layout import by
from glamlib.data.scenes import CueScenes, CueVolumeConfig, CueVolumes, LegendConfig, SceneConfig
from glamlib.errors import InputError, Natural, check_options, lookup
from glamlib.evaluation.evaluate import is_main
from glamlib.studies.parameters import Count, RunParameters

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


def _drawn(
    run: RunParameters, part: str, *, train: Count, test: Count, val: Natural = 0, **options: object
) -> AnyDataset:
    """Return drawn data; options beside those of their configuration: how many items of each part."""
    make, config_class = GENERATED[run.dataset]
    data = make(
        config_class(**options),
        {"train": train, "val": val, "test": test}[part],
        {"train": run.seed, "val": TEST_SEED + 1, "test": TEST_SEED}[part],
    )
    return InMemory(data, workers=run.workers) if part == "train" else data


def _read(
    run: RunParameters,
    part: str,
    *,
    train: str,
    test: str,
    val: str = "",
    limit: Count | None = None,
    in_memory: bool = True,
    **options: object,
) -> AnyDataset:
    """Return data on disk: of the split that a part is, at most the ``limit`` first items, by default read once."""
    split = {"train": train, "val": val, "test": test}[part]
    if run.dataset in VOLUMES:
        data = load_volumes(run.dataset, split, root=run.root or None, **options)
        data.original_labels = part != "train"  # scores are of the voxels of the label files
    else:
        if run.dataset == "folder" and part != "train":  # one's own are scored at the labels' size
            options.pop("size", None)
            in_memory = False  # at their own size they are large, and they are read once
        data = load_dataset(run.dataset, split, root=run.root or None, **options)
    data.items = data.items[:limit]
    if part == "train" and is_main() and data.about:
        print(data.about)
    return InMemory(data, workers=run.workers) if in_memory else data


OPTIONS = (  # what takes the options of each data set; the first makes its data
    {name: (_drawn, config) for name, (_, config) in GENERATED.items()}
    | dict.fromkeys(DATASETS, (_read, ImageFiles))
    | {name: (_read, volumes.open, volumes.labels) for name, volumes in VOLUMES.items()}
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

    All images are read once, and it is told where those of one's own were found and which classes no label of a split
    holds (of published sets: of the training split). InputError for bad options, data that are not there, a bad file,
    and training images of several sizes that are neither resized nor cropped.
    """
    options = data_options(run)
    if not options.get(part):
        raise InputError(f"missing option of data: {part}")
    data = OPTIONS[run.dataset][0](run, part, **options)
    if part != "train" and run.dataset in GENERATED:
        return data
    absent, sizes = survey(data)
    if is_main() and absent and (part == "train" or run.root):
        print(f"warning: no label of {options[part]} holds {', '.join(absent)}", file=sys.stderr)
    if part != "train":
        return data
    if len(sizes) > 1 and not run.augment:
        have = f"{by(min(sizes))} and {by(max(sizes))}"
        raise InputError(f"option of augment crop_size, or of data size: one is needed, because images differ: {have}")
    return data


def run_parts(run: RunParameters) -> Parts:
    """Return all data of a run by their part: see `run_data`."""
    return {part: run_data(run, part) for part in PARTS if part != "val" or run.validate_every}


def data_identity(dataset: AnyDataset) -> dict[str, object]:
    """Return what tells a data set from another of the same name: how many items, and a digest.

    It is of classes, names, files' sizes and contents: of all items that are held in memory, else of 64 evenly spaced.
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

"""The data of a run: what its parameters name, loaded and, unless they are too many, held in memory."""

import hashlib
import json
from typing import Literal

import numpy as np

from glamlib.data.datasets import VOLUMES, InMemory, InMemoryVolumes, SegmentationDataset, load_dataset, load_volumes
from glamlib.data.scenes import CueScenes, CueVolumeConfig, CueVolumes, SceneConfig
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import InputError, one_of
from glamlib.studies.parameters import RunParameters

AnyDataset = SegmentationDataset | VolumeDataset

# Training scenes are drawn from the run's own seed; the test scenes are the same for every run.
TEST_SEED = 1_000_000_007
# Data that are drawn, not read: how to make them, and their options.
GENERATED = {"scenes": (CueScenes, SceneConfig), "cue_volumes": (CueVolumes, CueVolumeConfig)}
VOLUME_DATA = ("cue_volumes", *VOLUMES)


def run_datasets(run: RunParameters) -> tuple[AnyDataset, AnyDataset]:
    """Return the training and test data of a run: see `run_data`."""
    return run_data(run, "train"), run_data(run, "test")


def run_data(run: RunParameters, part: Literal["train", "test"]) -> AnyDataset:
    """Return the training or the test data of a run.

    Generated data take the options of `SceneConfig` or `CueVolumeConfig` and ``train``, ``test`` (counts); other data
    ``train``, ``test`` (splits) and ``limit`` (use the first so many of each split), images ``size`` ([height, width]
    to resize to) and ``in_memory`` (false: read at every use), volumes the options of `load_volumes`.

    Raises:
        InputError: unknown data or option, or data that is not there.
    """
    options = dict(run.data)
    try:
        split = {name: options.pop(name) for name in ("train", "test")}[part]
    except KeyError as missing:
        raise InputError(f"parameter data={run.data!r}: {missing} is missing") from None
    hold = InMemoryVolumes if run.dataset in VOLUME_DATA else InMemory
    if run.dataset in GENERATED:
        make, config_class = GENERATED[run.dataset]
        for name in options:
            if name not in config_class.__dataclass_fields__:
                raise one_of(f"option of {run.dataset}", name, config_class.__dataclass_fields__)
        data = make(config_class(**options), split, run.seed if part == "train" else TEST_SEED)
        return hold(data, workers=run.workers) if part == "train" else data
    limit, in_memory = options.pop("limit", None), options.pop("in_memory", True)
    if run.dataset in VOLUMES:
        return hold(load_volumes(run.dataset, split, **options), limit, run.workers)
    if type(in_memory) is not bool or (limit is not None and not in_memory):
        raise InputError(
            f"parameter data={run.data!r}: in_memory must be true or false, and true where there is a limit"
        )
    size = options.pop("size", None)
    for name in options:
        raise one_of(f"option of {run.dataset}", name, ["train", "test", "size", "limit", "in_memory"])
    data = load_dataset(run.dataset, split, size=size and tuple(size))
    return hold(data, limit, run.workers) if in_memory else data


def data_identity(dataset: AnyDataset) -> dict[str, object]:
    """Return what tells a data set from another of the same name: how many items, and a digest.

    It is of classes, names and contents: of all items that are held in memory, else of 64 that are evenly spaced, and
    of the sizes of all files.
    """
    count = len(dataset)
    chosen = range(count) if isinstance(dataset, InMemory) else np.linspace(0, count - 1, min(count, 64)).astype(int)
    files = [file.stat().st_size for pair in getattr(dataset, "pairs", ()) for file in (pair.image, pair.label)]
    digest = hashlib.sha256()
    digest.update(json.dumps([dataset.classes, [dataset.name(index) for index in range(count)], files]).encode())
    for index in chosen:
        for tensor in dataset[int(index)]:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy())
    return {"items": count, "digest": digest.hexdigest()[:16]}

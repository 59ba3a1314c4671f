"""The data of a run: what its parameters name, loaded and, unless they are too many, held in memory."""

import hashlib
import json
from collections.abc import Iterable
from typing import Literal

import numpy as np

from glamlib.data.datasets import VOLUMES, InMemory, InMemoryVolumes, SegmentationDataset, load_dataset, load_volumes
from glamlib.data.scenes import CueScenes, CueVolumeConfig, CueVolumes, SceneConfig
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import InputError, check, one_of
from glamlib.studies.parameters import Count, RunParameters, Sides

AnyDataset = SegmentationDataset | VolumeDataset

TEST_SEED = 1_000_000_007  # of generated test data, the same for every run
GENERATED = {
    "scenes": (CueScenes, SceneConfig, InMemory),
    "cue_volumes": (CueVolumes, CueVolumeConfig, InMemoryVolumes),
}
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
        InputError: unknown data, an unknown or bad option, or data that is not there.
    """
    if run.dataset in GENERATED:
        make, config_class, hold = GENERATED[run.dataset]
        options, others = _options(run, {"train": Count, "test": Count}, config_class.__dataclass_fields__)
        config = config_class(**others)
        if part == "test":
            return make(config, options[part], TEST_SEED)
        return hold(make(config, options[part], run.seed), workers=run.workers)
    kinds = {"train": str, "test": str, "limit": Count | None}
    if run.dataset in VOLUMES:
        options, others = _options(run, kinds)
        return InMemoryVolumes(load_volumes(run.dataset, options[part], **others), options["limit"], run.workers)
    options, _ = _options(run, kinds | {"size": Sides | None, "in_memory": bool | None}, ())
    limit, in_memory = options["limit"], options["in_memory"] is not False
    if limit and not in_memory:
        raise InputError(f"option of data limit={limit}: cannot be combined with in_memory=false")
    data = load_dataset(run.dataset, options[part], size=options["size"])
    return InMemory(data, limit, run.workers) if in_memory else data


def _options(run: RunParameters, kinds: dict[str, object], others: Iterable[str] | None = None) -> tuple[dict, dict]:
    """Return those options of ``run.data`` that are of ``kinds``, checked, and the rest, of ``others`` if given."""
    rest = {name: value for name, value in run.data.items() if name not in kinds}
    for name in rest:
        if others is not None and name not in others:
            raise one_of(f"option of {run.dataset}", name, [*kinds, *others])
    return {name: check(f"option of data {name}", run.data.get(name), kind) for name, kind in kinds.items()}, rest


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

"""The data of a run: what a study's parameters name, loaded and, unless they are too many, held in memory."""

from typing import Literal

from glamlib.data.datasets import VOLUMES, InMemory, InMemoryVolumes, SegmentationDataset, load_dataset, load_volumes
from glamlib.data.scenes import CueScenes, CueVolumeConfig, CueVolumes, SceneConfig
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import InputError, one_of
from glamlib.studies.parameters import RunParameters

# Training scenes are drawn from the run's own seed; the test scenes are the same for every run.
TEST_SEED = 1_000_000_007


# Data that are drawn, not read: how to make them and their options.
GENERATED = {
    "scenes": (CueScenes, SceneConfig, InMemory),
    "cue_volumes": (CueVolumes, CueVolumeConfig, InMemoryVolumes),
}
VOLUME_DATA = ("cue_volumes", *VOLUMES)

AnyDataset = SegmentationDataset | VolumeDataset


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
    if run.dataset in GENERATED:
        make, config_class, hold = GENERATED[run.dataset]
        try:
            config = config_class(**options)
        except TypeError:
            allowed = config_class.__dataclass_fields__
            raise one_of(f"option of {run.dataset} among", list(options), allowed) from None
        return (
            hold(make(config, split, run.seed), workers=run.workers)
            if part == "train"
            else make(config, split, TEST_SEED)
        )
    limit = options.pop("limit", None)
    if run.dataset in VOLUMES:
        return InMemoryVolumes(load_volumes(run.dataset, split, **options), limit, run.workers)
    size = options.pop("size", None)
    in_memory = options.pop("in_memory", True)
    if type(in_memory) is not bool or (limit is not None and not in_memory):
        raise InputError(
            f"parameter data={run.data!r}: in_memory must be true or false, and true where there is a limit"
        )
    if options:
        raise one_of(f"option of {run.dataset}", next(iter(options)), ["train", "test", "size", "limit", "in_memory"])
    size = None if size is None else tuple(size)
    dataset = load_dataset(run.dataset, split, size=size)
    return InMemory(dataset, limit, run.workers) if in_memory else dataset

"""The data of a run: what a study's parameters name, loaded and held in memory."""

from glamlib.data.registry import InMemory, SegmentationDataset, load_dataset
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.errors import InputError, one_of

from .parameters import RunParameters

# Training scenes are drawn from the run's own seed; the test scenes are the same for every run.
TEST_SEED = 1_000_000_007


def run_datasets(run: RunParameters) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Return the training and test data of a run.

    Scenes take the options of `SceneConfig` and ``train``, ``test`` (counts); other data ``train``, ``test`` (splits),
    ``size`` ([height, width] to resize to) and ``limit`` (use the first so many images of each split).

    Raises:
        InputError: unknown data or option, or data that is not there.
    """
    options = dict(run.data)
    try:
        train, test = options.pop("train"), options.pop("test")
    except KeyError as missing:
        raise InputError(f"parameter data={run.data!r}: {missing} is missing") from None
    if run.dataset == "scenes":
        try:
            config = SceneConfig(**options)
        except TypeError:
            raise one_of("option of scenes among", list(options), SceneConfig.__dataclass_fields__) from None
        return InMemory(CueScenes(config, train, run.seed)), CueScenes(config, test, TEST_SEED)
    size, limit = options.pop("size", None), options.pop("limit", None)
    if options:
        raise one_of(f"option of {run.dataset}", next(iter(options)), ["train", "test", "size", "limit"])
    size = None if size is None else tuple(size)
    return tuple(InMemory(load_dataset(run.dataset, split, size=size), limit) for split in (train, test))

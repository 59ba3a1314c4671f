"""How many images a second the loader reads and augments, by number of workers: can it keep a model fed?

python -m glamlib.study.loader_speed DATASET [--split train] [--crop-size 512 512] [--workers 0 1 2 4] ...

`glamlib.study.paper_speed` times the paper's two sets with the recipe's augmentation.

What is timed is what training does on the processor: decoding, augmentation, batches of uint8. Normalisation is the
device's. A model is kept fed where the loader's images a second exceed those that it trains at.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import tyro
from torch.utils.data import DataLoader

from glamlib.data.registry import SegmentationDataset, load_dataset
from glamlib.data.transforms import TrainTransform
from glamlib.errors import InputError

from .files import write_whole
from .provenance import device_name, origin
from .training import StepBatches, TrainingView


@dataclass(frozen=True)
class LoaderSpeed:
    """A row of the table; height and width, in pixels, of the crop.

    ``pictures`` says whose they are: "its own", or a stand-in's.
    """

    dataset: str
    height: int
    width: int
    batch_size: int
    workers: int
    images_per_second: float
    device: str
    pictures: str = "its own"

    def row(self) -> dict[str, object]:
        """Return it with torch's version, the commit and whether the code differed from it."""
        return asdict(self) | origin()


def images_per_second(view: TrainingView, batch_size: int, workers: int, batches: int) -> float:
    """Return the images a second of ``batches`` batches, after as many that are not timed as there are workers.

    The workers' start is so left out, and as nothing else waits here, none lies ready when the clock starts.
    """
    first = max(1, workers)
    loader = DataLoader(view, batch_sampler=StepBatches(0, first + batches, batch_size), num_workers=workers)
    arrivals = iter(loader)
    for _ in range(first):
        next(arrivals)
    started = time.perf_counter()
    for _ in arrivals:
        pass
    return batches * batch_size / (time.perf_counter() - started)


def measure(
    name: str,
    data: SegmentationDataset,
    transform: TrainTransform,
    batch_size: int,
    workers: list[int],
    batches: int,
    pictures: str = "its own",
) -> list[LoaderSpeed]:
    """Return a row for each number of ``workers``; InputError for a number that is too small."""
    for what, least, values in (("batch_size", 1, [batch_size]), ("batches", 1, [batches]), ("workers", 0, workers)):
        if min(values) < least:
            raise InputError(f"{what} {min(values)} cannot be used; allowed: {least} or more")
    view, cpu = TrainingView(data, 0, transform), device_name("cpu")
    return [
        LoaderSpeed(
            name, *transform.crop_size, batch_size, n, images_per_second(view, batch_size, n, batches), cpu, pictures
        )
        for n in workers
    ]


def main(
    dataset: tyro.conf.Positional[str],
    root: Path | None = None,
    split: str = "train",
    crop_size: tuple[int, int] = (512, 512),
    long_short: tuple[int, int] | None = None,
    batch_size: int = 4,
    workers: tuple[int, ...] = (0, 1, 2, 4),
    batches: int = 16,
    trains_at: float | None = None,
    results: Path | None = None,
) -> None:
    """Time the loader and print a line for each number of workers.

    Args:
        dataset: its name.
        root: its folder; by default the one of its name in GLAM_DATA.
        split: which split.
        crop_size: height and width that the network sees, in pixels.
        long_short: see `TrainTransform`; the paper's is 2048 512 for ADE20K.
        batch_size: images a batch.
        workers: numbers of worker processes.
        batches: how many are timed.
        trains_at: images a second that a model trains at; each line then says whether it is kept fed.
        results: folder under which to write tables/loader_speed.csv; by default nothing is written.
    """
    data = load_dataset(dataset, split, root=root)
    transform = TrainTransform(crop_size, cat_max_ratio=0.75, long_short=long_short)
    rows = measure(dataset, data, transform, batch_size, list(workers), batches)
    for row in rows:
        fed = "" if trains_at is None else f", {row.images_per_second / trains_at:.2f} of what the model takes"
        print(
            f"{row.dataset} {row.height}x{row.width}, {row.workers} workers: {row.images_per_second:.1f} images/s{fed}"
        )
    if results is not None:
        table = pd.DataFrame([row.row() for row in rows])
        write_whole(results / "tables" / "loader_speed.csv", table.to_csv(index=False))


if __name__ == "__main__":
    try:
        tyro.cli(main, prog="python -m glamlib.study.loader_speed")
    except InputError as error:
        sys.exit(f"error: {error}")

"""Speed and memory of a training step by model, image size and batch, so that a run's time can be told in advance.

python -m glamlib.study.step_speed MODEL ... [--sizes "512 512" ...] [--batches 2 4] [--device auto] [--out TABLE.csv]

What is timed is `glamlib.study.training.train` itself, on random images that lie ready in memory.
"""

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from glamlib.errors import InputError
from glamlib.models.zoo import create_model, model_config

from .files import write_whole
from .parameters import RunParameters
from .provenance import device_name, origin, peak_memory_mib
from .recipe import ADE20K
from .training import resolve_device, train

WARM_UP, TIMED = 2, 5  # steps
CLASSES = 150


@dataclass(frozen=True)
class StepSpeed:
    """A row of the table: the median of the timed steps in seconds (NaN: it does not fit), and the peak memory in MiB.

    ``paper_hours`` is the time of the paper's run in one process, 160000 steps of 16 images, at these images a second.
    A row of the table also says torch's version, the commit and whether the code differed from it.
    """

    model: str
    overrides: str
    height: int
    width: int
    batch_size: int
    precision: str
    device: str
    seconds: float
    peak_mib: float
    threads: int = 1

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.seconds

    @property
    def paper_hours(self) -> float:
        recipe = ADE20K.profiles["paper"].run
        return recipe["steps"] * recipe["batch_size"] / self.images_per_second / 3600

    def row(self) -> dict[str, object]:
        told = {"images_per_second": self.images_per_second, "paper_hours": self.paper_hours}
        return asdict(self) | told | origin()


class _Enough(Exception):
    """Stops training after the last timed step."""


class _RandomItems:
    """A dataset of ``count`` random images (3, H, W) and labels (H, W)."""

    classes = tuple(str(number) for number in range(CLASSES))
    ignore_index = 255

    def __init__(self, count: int, height: int, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(CLASSES, (count, height, width), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


def time_steps(
    run: RunParameters, height: int, width: int, warm_up: int = WARM_UP, timed: int = TIMED
) -> tuple[float, float]:
    """Return the median seconds of a step of a run's model, and the peak memory of this process in MiB.

    Batch, precision, device and threads are the run's; ``timed`` steps count, after ``warm_up`` that do not. In a
    process of its own: see `measure`.
    """
    # one step more than are made: the last would end with a checkpoint
    steps = warm_up + timed + 1
    run = replace(run, steps=steps, checkpoint_every=steps, augment={}, pretrained="", warmup_steps=0, workers=0)
    model = create_model(run.model, num_classes=CLASSES, **run.overrides)
    ends: list[float] = []

    def on_step(step: int) -> None:
        ends.append(time.perf_counter())
        if step == warm_up + timed:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder, suppress(_Enough):
        train(
            model,
            _RandomItems(run.batch_size, height, width),
            run,
            Path(folder) / "run.safetensors",
            on_step=on_step,
        )
    seconds = [end - start for start, end in pairwise(ends[warm_up - 1 :])]
    return median(seconds), peak_memory_mib(resolve_device(run.device))


def measure(run: RunParameters, height: int, width: int, warm_up: int = WARM_UP, timed: int = TIMED) -> StepSpeed:
    """Return a row of the table, timed in a process of its own; NaN for seconds and memory where it does not fit.

    ``warm_up``, at least 1, and ``timed`` are steps, as in `time_steps`.

    Raises:
        InputError: an unknown model, a device that is not there.
    """
    model_config(run.model, **run.overrides)
    device = resolve_device(run.device)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            seconds, peak = pool.submit(time_steps, run, height, width, warm_up, timed).result()
        except (torch.OutOfMemoryError, BrokenProcessPool):  # refused memory, or killed for it
            seconds = peak = float("nan")
    overrides = ", ".join(f"{name}={value}" for name, value in run.overrides.items())
    place = device_name(device)
    batch = run.batch_size
    return StepSpeed(run.model, overrides, height, width, batch, run.precision, place, seconds, peak, run.threads)


def step_run(
    model: str, tokens: int, batch_size: int, device: str, precision: str = "fp32", threads: int = 1
) -> RunParameters:
    """Return a run to time: ``tokens`` a window, 0 for a model that has none; the rest as in `RunParameters`."""
    return RunParameters(
        study="step_speed",
        variant=model,
        seed=0,
        profile="paper",
        model=model,
        overrides={"num_global_tokens": tokens} if tokens else {},
        dataset="ade20k",
        steps=1,
        batch_size=batch_size,
        lr=6e-5,
        clip_norm=0.0,
        device=device,
        precision=precision,
        threads=threads,
    )


def step_speed(
    models: Positional[tuple[str, ...]],
    sizes: tuple[str, ...] = ("512 512",),
    batches: tuple[int, ...] = (2,),
    tokens: tuple[int, ...] = (10,),
    device: str = "auto",
    precision: str = "fp32",
    threads: int = 1,
    out: Path | None = None,
) -> None:
    """Time a training step of every model at every size and batch, and print a table.

    Args:
        models: names; `python -m glamlib models` lists them.
        sizes: height and width in pixels, "H W".
        batches: images a step; networks with UPerNet need 2.
        tokens: global tokens a window, of GLAM alone.
        device: cpu, cuda or auto.
        precision: fp32 or bf16.
        threads: of the CPU.
        out: also write the table to this file (CSV).
    """
    rows = []
    for size in sizes:
        sides = size.split()
        if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
            raise InputError(f'--sizes {size!r}: must be "H W", whole numbers above 0')
        for name in models:
            for number in tokens if name.startswith("glam_") else (0,):
                for batch in batches:
                    run = step_run(name, number, batch, device, precision, threads)
                    rows.append(measure(run, *map(int, sides)).row())
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if out is not None:
        write_whole(out, table.to_csv(index=False))


if __name__ == "__main__":
    try:
        tyro.cli(step_speed)
    except InputError as error:
        sys.exit(f"error: {error}")

"""Speed and memory of a training step by model, image size and batch, so that a run's time can be told in advance.

python -m glamlib.bench.step MODEL ... [--sizes "512 512" ...] [--batches 2 4] [--device auto] [--out TABLE.csv]

What is timed is `glamlib.training.loop.train` itself, on random images that lie ready in memory.


MERGED: Before days of computing: what would run and for how long, by a timed trial; and a question.

    python -m glamlib.bench.step --build build/paper --results results/paper [--yes]

On a GPU every kind of network is timed. On the CPU one is, and the others are taken to be as much slower or faster as
they have multiply-adds: timing all would itself take hours.
"""

import argparse
import json
import multiprocessing
import re
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
from glamlib.files import write_whole
from glamlib.runs.provenance import device_name, origin, peak_memory_mib
from glamlib.studies.paper import ADE20K
from glamlib.studies.parameters import RunParameters
from glamlib.training.loop import resolve_device, train
from glamlib.zoo import create_model, model_config

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

    def name(self, index: int) -> str:
        return str(index)

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


TRIAL_BATCH = 2  # images; one process's share in the recipe of 8 GPUs
Kind = tuple[str, str, tuple[int, int]]  # model, overrides, crop


def open_runs(build: Path, results: Path) -> list[RunParameters]:
    """Return the planned runs that have no record newer than their plan, which `make` would run."""
    names = re.findall(r"\$\(RESULTS\)/runs/(\S+)/record\.json", (build / "plan.mk").read_text())
    found = []
    for name in names:
        plan, record = build / "plan" / f"{name}.json", results / "runs" / name / "record.json"
        if not record.exists() or record.stat().st_mtime < plan.stat().st_mtime:
            found.append(RunParameters.from_dict(json.loads(plan.read_text())["parameters"]))
    return found


def kind_of(run: RunParameters) -> Kind:
    """Return what decides the time of an image in training."""
    return run.model, json.dumps(run.overrides, sort_keys=True), tuple(run.augment["crop_size"])


def multiply_adds(run: RunParameters) -> int:
    """Return the multiply-adds of a run's network for one crop."""
    from glamlib.cost.table import macs_of
    from glamlib.zoo import model_config

    return macs_of(model_config(run.model, **run.overrides), *run.augment["crop_size"])["total"]


def seconds_an_image(runs: list[RunParameters], device: str) -> dict[Kind, float]:
    """Return the seconds of an image in training on ``device``, for every kind among the runs; NaN: does not fit."""

    warm_up, timed_steps = (WARM_UP, TIMED) if device == "cuda" else (1, 2)

    def timed(run: RunParameters) -> float:
        trial = replace(run, batch_size=TRIAL_BATCH, accumulate=1, device=device)
        return measure(trial, *run.augment["crop_size"], warm_up, timed_steps).seconds / TRIAL_BATCH

    kinds = {kind_of(run): run for run in runs}
    if device == "cuda":
        return {kind: timed(run) for kind, run in kinds.items()}
    smallest = min(kinds.values(), key=multiply_adds)
    rate = timed(smallest) / multiply_adds(smallest)
    return {kind: rate * multiply_adds(run) for kind, run in kinds.items()}


def listing(runs: list[RunParameters], seconds: dict[Kind, float]) -> str:
    """Return a line a run, with its hours in one process, and the sum."""
    hours = [seconds[kind_of(run)] * run.batch_size * run.steps / 3600 for run in runs]
    width = max(len(f"{run.study} {run.variant} seed {run.seed}") for run in runs)
    lines = [
        f"{f'{run.study} {run.variant} seed {run.seed}':<{width}}  {run.steps} steps of {run.batch_size}  {time:9.1f} h"
        for run, time in zip(runs, hours, strict=True)
    ]
    return "\n".join([*lines, f"{len(runs)} runs, {sum(hours):.0f} hours, one process each"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args()
    try:
        runs = open_runs(options.build, options.results)
        if not runs:
            return
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        print(f"timing a trial on {device}", flush=True)
        print(listing(runs, seconds_an_image(runs, device)))
        wanted = {run.device for run in runs}
        if device == "cpu" and "cuda" in wanted:
            print("they are planned for cuda, which is not here: DEVICE=cpu plans them for the processor")
    except InputError as error:
        sys.exit(f"error: {error}")
    if options.yes:
        return
    if not sys.stdin.isatty():
        sys.exit("not confirmed: YES=1 runs them without asking")
    if input("run them? [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("nothing was run")


if __name__ == "__main__":
    main()

"""Before days of computing: what would run, for how long, by timed training steps; and a question.

python -m glamlib.bench.step --profile paper --build build/paper --results results/paper [--yes]
On a GPU every kind of network is timed; on a CPU, where that takes hours, one is, and multiply-adds tell the others.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import tyro
from torch.utils.data import TensorDataset

from glamlib.bench.speed import apart
from glamlib.cost.count import count_macs
from glamlib.errors import InputError, one_line_errors
from glamlib.runs.reproduce import unfinished, write_plan
from glamlib.studies.parameters import RunParameters
from glamlib.training.loop import train
from glamlib.zoo import create_model

CLASSES = 150
BATCH = 2  # images; one process's share in the recipe of 8 GPUs


class _Items(TensorDataset):
    classes, ignore_index, name = tuple(map(str, range(CLASSES))), 255, staticmethod(str)


def step_seconds(run: RunParameters, timed: int) -> float:
    """Return the median seconds of a step of the training loop, after a warm-up of two, on images held in memory."""
    images = torch.randint(256, (BATCH, 3, *run.augment["crop_size"]), dtype=torch.uint8)  # (B, 3, H, W)
    items, steps = _Items(images, images[:, 0] % CLASSES), timed + 3  # the last, with its checkpoint, does not count
    trial = {"steps": steps, "checkpoint_every": steps, "augment": {}, "pretrained": "", "warmup_steps": 0}
    run = replace(run, batch_size=BATCH, accumulate=1, workers=0, **trial)
    model, ends = create_model(run.model, num_classes=CLASSES, **run.overrides), []
    with tempfile.TemporaryDirectory() as folder:
        train(model, items, run, Path(folder) / "run", on_step=lambda step: ends.append(time.perf_counter()))
    return median(end - start for start, end in pairwise(ends[1:-1]))


def image_seconds(runs: list[RunParameters], device: str) -> list[float]:
    """Return the seconds of an image in training, for each run; each kind of network and crop is timed once."""
    kinds = [(run.model, json.dumps(run.overrides, sort_keys=True), tuple(run.augment["crop_size"])) for run in runs]
    trials = {kind: replace(run, device=device) for kind, run in zip(kinds, runs, strict=True)}
    if device == "cuda":
        seconds = {kind: apart(step_seconds, run, 5) / BATCH for kind, run in trials.items()}
    else:
        with torch.device("meta"):  # no memory for the weights
            models = {kind: create_model(kind[0], num_classes=CLASSES, **run.overrides) for kind, run in trials.items()}
        macs = {kind: count_macs(model, *kind[2])["total"] for kind, model in models.items()}
        smallest = min(macs, key=macs.get)
        rate = apart(step_seconds, trials[smallest], 2) / BATCH / macs[smallest]
        seconds = {kind: rate * number for kind, number in macs.items()}
    return [seconds[kind] for kind in kinds]


def listing(runs: list[RunParameters], seconds: list[float]) -> str:
    """Return a table of the runs, with their hours in one process, and the sum."""
    table = pd.DataFrame(runs)[["study", "variant", "seed", "steps", "batch_size"]]
    table["hours"] = table["steps"] * table["batch_size"] * seconds / 3600
    total = f"{len(runs)} runs, {table['hours'].sum():.0f} hours, one process each"
    if unknown := table["hours"].isna().sum():
        total += f"; without {unknown} that could not be timed here"
    return f"{table.round(1).to_string(index=False)}\n{total}"


def confirm(
    build: Path,
    results: Path,
    profile: str = "paper",
    study: str = "all",
    seeds: int | None = None,
    device: str = "",
    yes: bool = False,
) -> None:
    """List the runs that are planned and have not run, estimate their hours, and ask, unless ``yes``, to run them."""
    plan = write_plan(build, profile, study, seeds, device)
    if not (runs := [plan[name] for name in unfinished(plan, build, results)]):
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"timing training steps on {device}", flush=True)
    print(listing(runs, image_seconds(runs, device)))
    if device == "cpu" and any(run.device == "cuda" for run in runs):
        print("they are planned for cuda, which is not here: DEVICE=cpu plans them for the processor")
    if not yes and not sys.stdin.isatty():
        raise InputError("not confirmed: YES=1 runs them without asking")
    if not yes and input("run them? [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("nothing was run")


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(confirm)

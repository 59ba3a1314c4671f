"""Can the paper's profile be run, and for how long: the loader's speed, a training step's, and the hours foretold.

python -m glamlib.study.paper_speed RESULTS [--device cpu] [--threads 2]

writes tables/loader_speed.csv, step_speed.csv and paper_hours.csv in RESULTS. On a CPU few networks are timed, and
small: all of them, at the recipe's crops, would take it hours.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import tyro
from tyro.conf import Positional

from glamlib.data.registry import data_root, load_dataset
from glamlib.data.transforms import TrainTransform
from glamlib.errors import InputError, one_of
from glamlib.models.zoo import model_config

from .cost_table import macs_of
from .files import write_whole
from .loader_speed import LoaderSpeed
from .loader_speed import measure as measure_loader
from .paper_hours import paper_hours, paper_runs
from .parameters import DEVICES
from .provenance import origin
from .recipe import ADE20K, CITYSCAPES
from .step_speed import measure, step_run
from .training import resolve_device

STANDIN_PICTURES = 12
LOADER_BATCH = 2  # one process's share in the recipe of 8 GPUs
BATCHES = {"ade20k": 20, "cityscapes": 12}  # timed, at each number of workers


@dataclass(frozen=True)
class Case:
    """A training step to time; ``tokens`` a window, 0 for Swin."""

    model: str
    tokens: int
    size: tuple[int, int]
    batch_size: int
    precision: str = "fp32"


# model, size and batch differ one at a time
CPU_CASES = (
    Case("swin_tiny_unet", 0, (256, 256), 2),
    Case("glam_swin_tiny_unet", 10, (256, 256), 2),
    Case("swin_tiny_unet", 0, (256, 256), 4),
    Case("swin_tiny_unet", 0, (512, 512), 2),
    Case("glam_swin_tiny_unet", 10, (512, 512), 2),
    Case("swin_tiny_upernet", 0, (256, 256), 2),
    Case("glam_swin_tiny_upernet", 10, (256, 256), 2),
)
CPU_STEPS, GPU_STEPS = (1, 2), (2, 5)  # to warm up, and timed


def cases(device: str) -> tuple[Case, ...]:
    """Return what is timed on "cpu" or "cuda": there every network of the recipe at its crop, and batch and bf16."""
    if device == "cpu":
        return CPU_CASES
    listed = [
        Case(run.model, run.overrides.get("num_global_tokens", 0), tuple(run.augment["crop_size"]), 2)
        for run in paper_runs()
    ]
    both = (("swin_tiny_upernet", 0), ("glam_swin_tiny_upernet", 10))
    listed += [Case(*one, (512, 512), batch) for one in both for batch in (4, 8, 16)]
    listed += [Case(*one, (512, 512), batch, "bf16") for one in both for batch in (2, 16)]
    return tuple(listed)


def step_table(listed: tuple[Case, ...], device: str, threads: int, warm_up: int, timed: int) -> pd.DataFrame:
    """Return a row a case: time and memory of its step, multiply-adds of an image forward, and where it was timed."""
    rows = []
    for case in listed:
        run = step_run(case.model, case.tokens, case.batch_size, device, case.precision, threads)
        row = measure(run, *case.size, warm_up, timed).row()
        what = f"{case.model}, {case.tokens} tokens, {case.size[0]}x{case.size[1]}, batch {case.batch_size}"
        print(f"step of {what}, {case.precision}: {row['seconds']:.2f} s, {row['peak_mib']:.0f} MiB", flush=True)
        gmacs = macs_of(model_config(case.model, **run.overrides), *case.size)["total"] / 1e9
        rows.append(row | {"tokens": case.tokens, "gmacs": gmacs})
    return pd.DataFrame(rows)


def loader_rows(workers: tuple[int, ...], batches: dict[str, int] = BATCHES) -> list[LoaderSpeed]:
    """Return the loader's images a second on ADE20K and Cityscapes as the recipe augments them.

    Where GLAM_DATA has no such set, CamVid's pictures stand in for it (`standin`). Raises InputError without either.
    """
    from .standin import write_standin

    torch.set_num_threads(1)  # of this process, as in a run; workers have one anyway
    rows = []
    for study in (ADE20K, CITYSCAPES):
        name, root = study.dataset, data_root(study.dataset)
        transform = TrainTransform(**study.profiles["paper"].run["augment"])
        with tempfile.TemporaryDirectory() as folder:
            pictures = "its own"
            if root is None or not root.is_dir():
                root, pictures = Path(folder), "CamVid, enlarged"
                camvid = load_dataset("camvid", "train")
                write_standin(name, camvid, root, STANDIN_PICTURES)
            print(f"loader {name}, pictures: {pictures}", flush=True)
            data = load_dataset(name, "train", root=root)
            rows += measure_loader(name, data, transform, LOADER_BATCH, list(workers), batches[name], pictures)
    return rows


def paper_speed(results: Positional[Path], device: str = "cpu", threads: int = 2) -> None:
    """Measure, and write the three tables.

    Args:
        results: the folder that has, or gets, tables/.
        device: cpu, cuda or auto.
        threads: of the CPU, for a training step.
    """
    if threads < 1:
        raise InputError(f"threads {threads}: must be at least 1")
    if device not in DEVICES:
        raise one_of("device", device, DEVICES)
    place = resolve_device(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loader = pd.DataFrame([row.row() for row in loader_rows(tuple(sorted({0, 1, cores // 2, cores})))])
    _write(results, "loader_speed", loader)
    steps = step_table(cases(place), place, threads, *(GPU_STEPS if place == "cuda" else CPU_STEPS))
    _write(results, "step_speed", steps)
    _write(results, "paper_hours", paper_hours(steps).assign(**origin()))


def _write(results: Path, name: str, table: pd.DataFrame) -> None:
    write_whole(results / "tables" / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    try:
        tyro.cli(paper_speed, prog="python -m glamlib.study.paper_speed")
    except InputError as error:
        sys.exit(f"error: {error}")

"""Before days of computing: what would run and for how long, by a timed trial; and a question.

    python -m glamlib.study.confirm --build build/paper --results results/paper [--yes]

On a GPU every kind of network is timed. On the CPU one is, and the others are taken to be as much slower or faster as
they have multiply-adds: timing all would itself take hours.
"""

import argparse
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from glamlib.errors import InputError

from .parameters import RunParameters

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
    from glamlib.models.zoo import model_config

    from .cost_table import macs_of

    return macs_of(model_config(run.model, **run.overrides), *run.augment["crop_size"])["total"]


def seconds_an_image(runs: list[RunParameters], device: str) -> dict[Kind, float]:
    """Return the seconds of an image in training on ``device``, for every kind among the runs; NaN: does not fit."""
    from .step_speed import TIMED, WARM_UP, measure

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

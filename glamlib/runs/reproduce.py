"""All runs of a profile: planned, and those that are missing or older than their plan executed, some at a time.

python -m glamlib.runs.reproduce --profile cpu --build build/cpu --results results --jobs 2 [options of runs.plan]
"""

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean

import tyro

from glamlib.errors import one_line_errors
from glamlib.runs import plan
from glamlib.runs.kernels import start_server
from glamlib.runs.notebook import execute, execute_all
from glamlib.runs.places import ROOT
from glamlib.studies import STUDIES


def unfinished(names: list[str], build: Path, results: Path) -> list[str]:
    """Return the runs, of names STUDY/VARIANT/seed-K, that have no record, or one that is older than the plan file."""

    def finished(name: str) -> bool:
        record, planned = results / "runs" / name / "record.json", build / "plan" / f"{name}.json"
        return record.exists() and record.stat().st_mtime >= planned.stat().st_mtime

    return [name for name in names if not finished(name)]


def next_runs(names: list[str]) -> list[str]:
    """Return those of unfinished runs that wait for no other: a study's wait for its learning-rate search."""
    left = {name.split("/")[0] for name in names}

    def waits(name: str) -> bool:
        search = STUDIES[name.split("/")[0]].rate_search
        return search is not None and search.name in left

    return [name for name in names if not waits(name)]


def time_left(names: list[str], waiting: list[str], results: Path, jobs: int) -> str:
    """Return ", about 40 min left" by the seconds in the records of the finished ones of ``names``; "" without any."""
    seconds = defaultdict(list)
    for name in set(names) - set(waiting):
        record = json.loads((results / "runs" / name / "record.json").read_text())
        seconds[name.split("/")[0]].append(record["seconds"])
    if not seconds:
        return ""
    overall = mean(time for times in seconds.values() for time in times)
    minutes = sum(mean(seconds.get(name.split("/")[0], [overall])) for name in waiting) / jobs / 60
    return f", about {minutes:.0f} min left" if minutes < 120 else f", about {minutes / 60:.0f} h left"


def main(
    build: Path,
    results: Path,
    profile: str = "cpu",
    study: str = "all",
    seeds: int | None = None,
    device: str = "",
    jobs: int = 1,
) -> None:
    """Plan and execute the runs of a profile; what a learning-rate search finds goes into the plan of its study."""
    names: list[str] = []
    started = 0

    def execute_run(name: str) -> None:
        nonlocal started
        waiting = unfinished(names, build, results)
        started = max(started, len(names) - len(waiting)) + 1
        print(f"run {started} of {len(names)} {name}{time_left(names, waiting, results, jobs)}", flush=True)
        parameters = json.loads((build / "plan" / f"{name}.json").read_text())["parameters"]
        execute(
            ROOT / "notebooks" / "04_train.ipynb",
            build / "runs" / f"{name}.ipynb",
            parameters | {"results": str(results)},
        )

    runs, waiting = [], None
    while runs != waiting:
        names = plan.main(build, results, profile, study, seeds, device)
        waiting = unfinished(names, build, results)
        runs = next_runs(waiting)
        execute_all([partial(execute_run, name) for name in runs], jobs)


if __name__ == "__main__":
    start_server()  # it imports the library while this process does
    with one_line_errors():
        tyro.cli(main)

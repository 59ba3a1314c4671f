"""All runs of a profile: planned, and those that are missing or older than their plan executed, some at a time.

    python -m glamlib.runs.reproduce --profile cpu --build build/cpu --results results --jobs 2
A plan file holds a run's parameters and a digest of the code that computes it, and is rewritten only when its content
changes. So a change in one variant reruns that variant alone, and a change of the code that computes reruns everything.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import tyro

from glamlib.data.datasets import FINDERS, VOLUMES, has_dataset
from glamlib.errors import InputError, one_line_errors
from glamlib.files import write_whole
from glamlib.runs.notebook import execute, execute_all, start_server
from glamlib.runs.places import ROOT, computing_digest, digest, imagenet_file
from glamlib.runs.records import read_record
from glamlib.studies import FETCHED, STUDIES, check_profile, find_study
from glamlib.studies.parameters import RunParameters
from glamlib.studies.study import Study
from glamlib.training.checkpoint import changes
from glamlib.training.datasets import GENERATED


def _has_data(study: Study) -> bool:
    """Tell whether a study's data are generated or below GLAM_DATA, and its weights are there."""
    weights = all(imagenet_file(variant.model) for variant in study.variants.values()) or not study.needs_weights
    return weights and (study.dataset in GENERATED or has_dataset(study.dataset))


def _absent(studies: Iterable[Study]) -> str:
    """Return the data of studies that are not there, each with where to get it."""
    hints = {name: volumes.source for name, volumes in VOLUMES.items()} | {name: f"make {name}" for name in FETCHED}
    absent = {study.dataset: study.needs_weights for study in studies if not _has_data(study)}
    weights = " or ImageNet weights in weights/"
    return ", ".join(f"{name}{weights * needs} ({hints.get(name, 'README')})" for name, needs in absent.items())


def chosen_studies(names: str, profile: str) -> list[Study]:
    """Return the studies of a comma-separated list, or those of "all" that have the profile and their data.

    InputError for an unknown study, and where the data of a named one, or of all, are absent.
    """
    named = STUDIES if names == "all" else dict.fromkeys(names.split(","))
    studies = [study for study in map(find_study, named) if profile in study.profiles or names != "all"]
    here = [study for study in studies if _has_data(study)]
    if not here or (names != "all" and here != studies):
        where = f"below GLAM_DATA={os.environ.get('GLAM_DATA')}"
        raise InputError(f"{names} of profile {profile}: data are not {where}: {_absent(studies)}")
    return here


def write_plan(
    build: Path, profile: str = "cpu", study: str = "all", seeds: int | None = None, device: str = ""
) -> dict[str, RunParameters]:
    """Write a plan of every run (STUDY/VARIANT/seed-K) below ``build/plan``, code.txt and plan.mk; return the runs."""
    studies = chosen_studies(study, check_profile(profile))
    if seeds is not None and seeds < 1:
        raise InputError(f"SEEDS={seeds}: must be at least 1")
    runs = [run for one in studies for run in one.runs(profile, seeds)]
    runs = {f"{run.study}/{run.variant}/seed-{run.seed}": replace(run, device=device or run.device) for run in runs}
    records = " ".join(f"$(RESULTS)/runs/{name}/record.json" for name in runs)
    absent = _absent(one for one in STUDIES.values() if profile in one.profiles) if study == "all" else ""
    note = f"; left out, because their data are not there: studies of {absent}" if absent else ""
    for name in sorted({one.dataset for one in studies} - GENERATED.keys()):
        note += "".join(f"; {line}" for line in FINDERS[name](Path(os.environ["GLAM_DATA"], name)).incomplete)
    files = {"code.txt": digest("glamlib")}
    files["plan.mk"] = f"STUDIES := {' '.join(one.name for one in studies)}\nRECORDS := {records}"
    for name, run in runs.items():
        files[f"plan/{name}.json"] = json.dumps({"parameters": run.to_dict(), "code": computing_digest()}, indent=1)
    for name, text in files.items():
        if not (build / name).exists() or (build / name).read_text() != f"{text}\n":
            write_whole(build / name, f"{text}\n")
    print(f"profile {profile}: {len(runs)} runs of {', '.join(one.name for one in studies)}{note}", flush=True)
    return runs


def unfinished(names: Iterable[str], build: Path, results: Path) -> list[str]:
    """Return the runs STUDY/VARIANT/seed-K without a record, or with one older than the plan or unlike it."""

    def stale(name: str) -> bool:
        run, plan = results / "runs" / name / "record.json", build / "plan" / f"{name}.json"
        if not run.exists() or run.stat().st_mtime < plan.stat().st_mtime:
            return True
        record, now = read_record(run), json.loads(plan.read_text())
        return record.get("code") != now["code"] or bool(changes(record["parameters"], now["parameters"]))

    return [name for name in names if stale(name)]


def time_left(finished: Mapping[str, float], waiting: Iterable[str], jobs: int) -> str:
    """Return ", about 40 min left" by the seconds that finished runs took, by name; "" without any."""
    if not finished:
        return ""
    seconds = pd.Series(finished)
    of_study = seconds.groupby(lambda name: name.split("/")[0]).mean()
    minutes = sum(of_study.get(name.split("/")[0], seconds.mean()) for name in waiting) / jobs / 60
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
    """Plan and execute the runs of a profile, ``jobs`` at a time."""
    runs = write_plan(build, profile, study, seeds, device)
    waiting = unfinished(runs, build, results)

    def seconds(name: str) -> float:
        return read_record(results / "runs" / name / "record.json")["seconds"]

    finished = {name: seconds(name) for name in runs.keys() - waiting}

    def execute_run(number: int, name: str) -> None:
        left = time_left(finished.copy(), [one for one in waiting if one not in finished], jobs)
        print(f"run {number} of {len(runs)} {name}{left}", flush=True)
        plan = json.loads((build / "plan" / f"{name}.json").read_text())
        parameters = plan["parameters"] | {"results": str(results)}
        execute(ROOT / "notebooks" / "14_train.ipynb", build / "runs" / f"{name}.ipynb", parameters)
        finished[name] = seconds(name)

    execute_all([partial(execute_run, *one) for one in enumerate(waiting, len(runs) - len(waiting) + 1)], jobs)


if __name__ == "__main__":
    start_server()  # it imports the library while this process does
    with one_line_errors():
        tyro.cli(main)

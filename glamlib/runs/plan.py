"""What `make` is to run: a plan file for every run, rewritten only when its content changes.

    python -m glamlib.runs.plan --profile cpu --study all --build build/cpu --results results [--seeds N] [--device D]

A plan file holds a run's parameters and a digest of the code that computes it. A record depends on its plan file, so a
change in one variant reruns that variant alone, and a change of the code that computes reruns everything.
"""

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean

import tyro

from glamlib.data.datasets import has_dataset
from glamlib.errors import InputError, one_line_errors
from glamlib.files import write_whole
from glamlib.runs.places import imagenet_file, run_folder
from glamlib.runs.provenance import computing_digest, whole_digest
from glamlib.studies import STUDIES, check_profile, find_study
from glamlib.studies.parameters import RunParameters
from glamlib.studies.study import Study


def with_chosen_rate(run: RunParameters, results: Path) -> RunParameters:
    """Return a run with the learning rate that its study's search found best on average over the search's networks.

    The run comes back as it is where its study has no search, or the search is not complete in ``results``.
    """
    search = find_study(run.study).rate_search
    scores = defaultdict(list)
    for candidate in search.runs(run.profile) if search else []:
        try:
            record = json.loads((run_folder(results, candidate) / "record.json").read_text())
            if RunParameters.from_dict(record["parameters"] | {"device": candidate.device}) != candidate:
                return run
            scores[candidate.lr].append(record["metrics"][search.metric])
        except (OSError, ValueError, KeyError, TypeError):  # InputError is a ValueError
            return run
    return replace(run, lr=max(scores, key=lambda rate: mean(scores[rate]))) if scores else run


def _has_data(study: Study) -> bool:
    """Tell whether a study's data are generated or below GLAM_DATA, and its weights are there."""
    weights = all(imagenet_file(variant.model) for variant in study.variants.values()) or not study.needs_weights
    return weights and (not study.needs_files or has_dataset(study.dataset))


def chosen_studies(names: str, profile: str) -> list[Study]:
    """Return the studies of a comma-separated list, or those of "all" that have the profile and their data.

    InputError for an unknown study, or a named one whose data are absent.
    """
    if names == "all":
        return [study for study in STUDIES.values() if profile in study.profiles and _has_data(study)]
    studies = [find_study(name) for name in dict.fromkeys(names.split(","))]
    for study in studies:
        if not _has_data(study):
            missing = f"{study.dataset}{' or no ImageNet weights in weights' if study.needs_weights else ''}"
            raise InputError(f"study {study.name}: no folder {missing} below GLAM_DATA={os.environ.get('GLAM_DATA')}")
    return studies


def write_plan(
    build: Path, profile: str, studies: list[Study], seeds: int | None, device: str, results: Path
) -> list[str]:
    """Write a plan file for every run below ``build/plan``, ``build/code.txt`` and ``build/plan.mk``; name the runs.

    Names are STUDY/VARIANT/seed-K. A study with a learning-rate search takes its result once the records are there.
    """
    _write_if_changed(build / "code.txt", whole_digest() + "\n")
    names = []
    for study in studies:
        for run in study.runs(profile, seeds):
            run = with_chosen_rate(run, results)
            run = replace(run, device=device) if device else run
            names.append(f"{run.study}/{run.variant}/seed-{run.seed}")
            plan = {"parameters": run.to_dict(), "code": computing_digest()}
            _write_if_changed(build / "plan" / f"{names[-1]}.json", json.dumps(plan, indent=1) + "\n")
    records = " ".join(f"$(RESULTS)/runs/{name}/record.json" for name in names)
    _write_if_changed(
        build / "plan.mk", f"STUDIES := {' '.join(study.name for study in studies)}\nRECORDS := {records}\n"
    )
    return names


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_whole(path, text)


def main(
    build: Path, results: Path, profile: str = "cpu", study: str = "all", seeds: int | None = None, device: str = ""
) -> list[str]:
    """Write the plan of a profile's runs below ``build``, whose records are in ``results``; return their names."""
    studies = chosen_studies(study, check_profile(profile))
    if seeds is not None and seeds < 1:
        raise InputError(f"SEEDS={seeds}: must be at least 1")
    names = write_plan(build, profile, studies, seeds, device, results)
    absent = [one.name for one in STUDIES.values() if profile in one.profiles and not _has_data(one)]
    note = f"; left out, their data are not there: {', '.join(absent)}" if study == "all" and absent else ""
    print(f"profile {profile}: {len(names)} runs of {', '.join(one.name for one in studies)}{note}", flush=True)
    return names


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)

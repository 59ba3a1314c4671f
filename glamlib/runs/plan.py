"""A learning rate chosen on validation data, once for all variants of a study.

MERGED: What `make` is to run: one plan file a run, rewritten only when what it says has changed.

    python -m glamlib.runs.plan --profile cpu --study all --build build/cpu [--seeds N] [--device D]
    python -m glamlib.runs.plan --recorded results/gpu --build build/gpu-merged

A plan file holds a run's parameters and a digest of the code that computes it (without comments, formatting and
docstrings). A record depends on its plan file, so a change in one variant reruns that variant alone, and a change of
the code that computes reruns everything. With ``--recorded`` there is nothing to run: tables are made of what records
there are. Nothing here needs torch: it is done at every `make`.
"""

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.runs.places import ROOT, imagenet_file, run_folder
from glamlib.runs.provenance import computing_digest, whole_digest
from glamlib.studies import STUDIES, check_profile, find_study
from glamlib.studies.parameters import RunParameters
from glamlib.studies.study import Study


def held_record(run: RunParameters, results: list[Path]) -> dict | None:
    """Return a run's record, of these very parameters, from the first of the folders that has one; None if none has."""
    for folder in results:
        try:
            record = json.loads((run_folder(folder, run) / "record.json").read_text())
            if RunParameters.from_dict(record["parameters"]) == run:
                return record
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none, or one that is not whole (InputError is a ValueError)
    return None


def with_chosen_rate(run: RunParameters, results: list[Path]) -> RunParameters:
    """Return a run with the learning rate that its study's schedule found best: by the mean of the metric over all runs
    of that rate.

    The run comes back as it is where its study has no schedule, and where the results folders do not hold all runs of
    the schedule: of candidates that have not all run none is the best.
    """
    schedule = find_study(run.study).schedule
    if schedule is None:
        return run
    scores = defaultdict(list)
    for candidate in schedule.runs(run.profile):
        record = held_record(candidate, results)
        if record is None:
            return run
        scores[candidate.lr].append(record["metrics"][schedule.metric])
    return replace(run, lr=max(scores, key=lambda rate: sum(scores[rate]) / len(scores[rate])))


# Notebooks about a study that they want whole: all variants, with the same seeds.
_WHOLE = {"context": "05_ablation", "release": "09_paper_and_release"}


def _has_data(study: Study) -> bool:
    """Tell whether a study's data are there: generated, or a folder or pack of that name below GLAM_DATA, and its
    weights.
    """
    if study.needs_weights and not all(imagenet_file(variant.model) for variant in study.variants.values()):
        return False
    place = Path(os.environ.get("GLAM_DATA", "")) / study.dataset
    packed = study.metric == "dice" and place.with_suffix(".zip").is_file()  # volumes may come as a pack
    return not study.needs_files or place.is_dir() or packed


def chosen_studies(names: str, profile: str) -> list[Study]:
    """Return the studies of a comma-separated list, or those of "all" that have the profile and their data.

    Raises:
        InputError: an unknown study, or a named one whose data are absent.
    """
    if names == "all":
        return [study for study in STUDIES.values() if profile in study.profiles and _has_data(study)]
    studies = [find_study(name) for name in names.split(",")]
    for study in studies:
        if not _has_data(study):
            weights = " or no ImageNet weights in weights" if study.needs_weights else ""
            raise InputError(
                f"study {study.name}: no folder {study.dataset}{weights} below GLAM_DATA={os.environ.get('GLAM_DATA')}"
            )
    return studies


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_whole(path, text)


def write_plan(
    build: Path, profile: str, studies: list[Study], seeds: int | None, device: str | None, results: Path
) -> int:
    """Write a plan file a run below ``build/plan``, ``build/code.txt``, and ``build/plan.mk``. Returns the runs.

    A study with a schedule takes the learning rate that the records in ``results`` tell, once they are there.
    """
    code = computing_digest()
    _write_if_changed(build / "code.txt", whole_digest() + "\n")
    lines = []
    total = 0
    for study in studies:
        names = []
        for run in study.runs(profile, seeds):
            run = with_chosen_rate(run, [results])
            if device:
                run = replace(run, device=device)
            name = f"{run.study}/{run.variant}/seed-{run.seed}"
            plan = {"parameters": run.to_dict(), "code": code}
            _write_if_changed(build / "plan" / f"{name}.json", json.dumps(plan, indent=1) + "\n")
            names.append(name)
        total += len(names)
        records = " ".join(f"$(RESULTS)/runs/{name}/record.json" for name in names)
        table = f"$(RESULTS)/tables/{study.name}.csv"
        lines += [f"TABLES += {table}", f"{table}: {records}"]
    _write_if_changed(build / "plan.mk", "\n".join(lines) + "\n")
    return total


def write_recorded(build: Path, results: Path) -> list[str]:
    """Write ``build/code.txt`` and a ``build/plan.mk`` of the studies that have records in ``results``, whose tables
    depend on these records alone, and of the notebooks that show them. Returns the studies' names.

    Raises:
        InputError: there is no record.
    """
    lines, names = [], []
    shown = ["06_camvid", "11_volume_study", "12_neighbours", "13_speed"]  # they say what is not there
    for study in STUDIES:
        records = sorted((results / "runs" / study).glob("*/seed-*/record.json"))
        if records:
            names.append(study)
            seeds = Counter(record.parent.parent.name for record in records)
            if study in _WHOLE and set(seeds) == set(STUDIES[study].variants) and len(set(seeds.values())) == 1:
                shown.append(_WHOLE[study])
            listed = " ".join(f"$(RESULTS)/{record.relative_to(results).as_posix()}" for record in records)
            lines += [f"TABLES += $(RESULTS)/tables/{study}.csv", f"$(RESULTS)/tables/{study}.csv: {listed}"]
    if not names:
        raise InputError(f"{results}: no records of any study in runs/")
    lines.append(f"READING := {' '.join(sorted(shown))}")
    _write_if_changed(build / "code.txt", whole_digest() + "\n")
    _write_if_changed(build / "plan.mk", "\n".join(lines) + "\n")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--study", default="all")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="where the records are")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--device")
    parser.add_argument("--recorded", type=Path, help="plan no runs: tables of the records in this results folder")
    options = parser.parse_args()
    try:
        if options.recorded:
            print(f"records of {', '.join(write_recorded(options.build, options.recorded))}")
            return
        profile = check_profile(options.profile)
        studies = chosen_studies(options.study, profile)
        if options.seeds is not None and options.seeds < 1:
            raise InputError(f"SEEDS={options.seeds}: must be at least 1")
        runs = write_plan(options.build, profile, studies, options.seeds, options.device or None, options.results)
    except InputError as error:
        sys.exit(f"error: {error}")
    left_out = [study.name for study in STUDIES.values() if profile in study.profiles and not _has_data(study)]
    note = f"; left out, their data are not there: {', '.join(left_out)}" if options.study == "all" and left_out else ""
    print(f"profile {profile}: {runs} runs of {', '.join(study.name for study in studies)}{note}")


if __name__ == "__main__":
    main()

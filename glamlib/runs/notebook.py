"""Executing a notebook with papermill; its output is written atomically.

    python -P glamlib/runs/notebook.py NOTEBOOK OUTPUT [--set NAME=VALUE ...] [--plan BUILD/plan/RUN.json --jobs N]

Unknown parameters stop it before the kernel starts (papermill would only warn). A notebook that fails leaves its output
as OUTPUT.failed.ipynb and never OUTPUT itself, so `make` tries again. Nothing here imports the library: that takes
seconds, and the kernel of every run takes them again.
"""

import argparse
import json
import logging
import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).resolve().parents[2]


def execute(notebook: Path, output: Path, parameters: dict[str, object]) -> None:
    """Execute ``notebook`` in a fresh kernel at the project's root and write it to ``output``.

    A notebook with a parameter ``more`` gets there what has no name of its own. ValueError for an unknown parameter, or
    an error in the notebook (the message says which).
    """
    known = papermill.inspect_notebook(str(notebook))
    others = {name: value for name, value in parameters.items() if name not in known}
    if others and "more" not in known:
        raise ValueError(f"unknown parameter of {notebook.name}: {next(iter(others))!r}; allowed: {', '.join(known)}")
    named = {name: value for name, value in parameters.items() if name in known}
    failed = output.with_name(output.name + ".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(failed),
            parameters=named | ({"more": others} if others else {}),
            cwd=str(ROOT),
            progress_bar=False,
            start_timeout=300,  # kernels start slowly when many start at once
            extra_arguments=["--IPKernelApp.log_level=50"],  # it would report every stop as an interrupt
        )
    except PapermillExecutionError as error:
        raise ValueError(f"{notebook.name} stopped: {error.ename}: {error.evalue} (see {failed})") from None
    document = nbformat.read(failed, as_version=4)
    document.metadata.pop("papermill", None)  # times and paths of this machine
    for cell in document.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
    nbformat.write(document, failed)
    failed.replace(output)


def progress(plan: Path, results: Path, jobs: int) -> str:
    """Return "run 12 of 188 NAME, about 40 min left", by the seconds in the records of the finished runs.

    Called once at the start of each run, with its plan file, BUILD/plan/STUDY/VARIANT/seed-K.json; BUILD/started.txt,
    which `make` removes first, lists the runs that have started. ``jobs`` runs go at a time.
    """
    build, name = plan.parents[3], "/".join(plan.with_suffix("").parts[-3:])
    with (build / "started.txt").open("a") as file:
        file.write(f"{name}\n")
    started = (build / "started.txt").read_text().split()
    names = set(re.findall(r"runs/(\S+)/record\.json", (build / "plan.mk").read_text()))
    seconds, waiting = defaultdict(list), []  # of finished runs and of others, by study
    begun = set(started[: started.index(name) + 1])
    for run in names:
        record, study = results / "runs" / run / "record.json", run.split("/")[0]
        if record.exists() and record.stat().st_mtime >= (build / "plan" / f"{run}.json").stat().st_mtime:
            seconds[study].append(json.loads(record.read_text())["seconds"])
            begun.add(run)
        else:
            waiting.append(study)
    line = f"run {len(begun)} of {len(names)} {name}"
    if not seconds:
        return line
    overall = mean(time for times in seconds.values() for time in times)
    minutes = sum(mean(seconds.get(study, [overall])) for study in waiting) / jobs / 60
    return f"{line}, about {minutes:.0f} min left" if minutes < 120 else f"{line}, about {minutes / 60:.0f} h left"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--plan", type=Path, help="a plan file, whose parameters notebook 04 gets")
    parser.add_argument("--jobs", type=int, help="say how far `make` is, which runs so many at a time")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help="further parameters; strings"
    )
    options = parser.parse_args()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # else a library's warnings, with paths, get into the outputs
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        parameters = json.loads(options.plan.read_text())["parameters"] if options.plan else {}
        if unnamed := [change for change in options.set if "=" not in change]:
            raise ValueError(f"--set {unnamed[0]!r}: must be NAME=VALUE")
        parameters |= dict(change.split("=", 1) for change in options.set)
        if options.jobs:
            print(progress(options.plan, ROOT / parameters["results"], options.jobs), flush=True)
        execute(options.notebook, options.output, parameters)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except (KeyError, TypeError) as error:
        sys.exit(f"error: {options.plan}: not a plan file ({type(error).__name__}: {error})")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

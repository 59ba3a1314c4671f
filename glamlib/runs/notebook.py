"""Executing a notebook with papermill, whole or not at all.

    python -m glamlib.runs.notebook NOTEBOOK OUTPUT [--plan PLAN.json] [--set NAME=VALUE ...]

Unknown parameters stop it before the kernel starts (papermill would only warn). A notebook that fails leaves its output
as OUTPUT.failed.ipynb and never OUTPUT itself, so `make` tries again.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from glamlib.errors import InputError, one_of
from glamlib.files import write_whole
from glamlib.runs.places import ROOT

# isort: split


def execute(notebook: Path, output: Path, parameters: dict[str, object]) -> None:
    """Execute ``notebook`` in a fresh kernel at the project's root and write it to ``output``.

    Raises:
        InputError: an unknown parameter, or the notebook stopped with an error (the message says which).
    """
    known = list(papermill.inspect_notebook(str(notebook)))
    for name in parameters:
        if name not in known:
            raise one_of(f"parameter of {notebook.name}:", name, known)
    failed = output.with_name(output.name + ".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(failed),
            parameters=parameters,
            cwd=str(ROOT),
            progress_bar=False,
            start_timeout=300,  # kernels start slowly when many start at once
            extra_arguments=["--IPKernelApp.log_level=50"],  # it would report every stop as an interrupt
        )
    except PapermillExecutionError as error:
        raise InputError(f"{notebook.name} stopped: {error.ename}: {error.evalue} (see {failed})") from None
    document = nbformat.read(failed, as_version=4)
    document.metadata.pop("papermill", None)  # times and paths of this machine
    for cell in document.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
    write_whole(output, nbformat.writes(document) + "\n")
    failed.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--plan", type=Path, help="a plan file, whose parameters the notebook gets")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="further parameters; strings")
    options = parser.parse_args()
    parameters = json.loads(options.plan.read_text())["parameters"] if options.plan else {}
    parameters |= dict(item.split("=", 1) for item in options.set)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # else a library's warnings, with paths, get into the outputs
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        execute(options.notebook, options.output, parameters)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Executing notebooks with papermill; an output is written atomically.

    python -m glamlib.runs.notebook NOTEBOOK ... OUTPUT [--set NAME=VALUE ...] [--jobs N]

OUTPUT is a file, or a folder for the executed copies of several notebooks, N of which are executed at a time. Unknown
parameters stop a notebook before its kernel starts (papermill would only warn). A notebook that fails leaves its output
as OUTPUT.failed.ipynb and never OUTPUT itself, so `make` tries again.
"""

import argparse
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from glamlib.errors import InputError, one_line_errors
from glamlib.runs.kernels import ForkedKernelManager, start_server, stop_kernels


def execute(notebook: Path, output: Path, parameters: dict[str, object]) -> None:
    """Execute ``notebook`` in a fresh kernel at the project's root, write it to ``output``; InputError if it fails.

    A notebook with a parameter ``more`` gets there what has no name of its own.
    """
    known = papermill.inspect_notebook(str(notebook))
    others = {name: value for name, value in parameters.items() if name not in known}
    if others and "more" not in known:
        raise InputError(f"unknown parameter of {notebook.name}: {next(iter(others))!r}; allowed: {', '.join(known)}")
    named = {name: value for name, value in parameters.items() if name in known}
    failed = output.with_name(output.name + ".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        document = papermill.execute_notebook(
            str(notebook),
            str(failed),
            parameters=named | ({"more": others} if others else {}),
            progress_bar=False,
            record_timing=False,
            start_timeout=300,  # kernels start slowly when many start at once
            kernel_manager_class=ForkedKernelManager,
            extra_arguments=["--IPKernelApp.log_level=50"],  # it would report every stop as an interrupt
        )
    except PapermillExecutionError as error:
        raise InputError(f"{notebook.name} stopped: {error.ename}: {error.evalue} (see {failed})") from None
    document.metadata["seconds"] = document.metadata["papermill"]["duration"]
    for part in (document, *document.cells):
        part.metadata.pop("papermill", None)  # times and paths of this machine
    nbformat.write(document, failed)
    failed.replace(output)


def execute_all(work: Iterable[Callable[[], None]], jobs: int) -> None:
    """Call all functions, which execute notebooks, ``jobs`` at a time.

    After the first error no further one is started, those at work are waited for, and the error is raised. When the
    process is interrupted, the kernels are stopped.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    start_server()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one) for one in work]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                stop_kernels()
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="+", metavar="NOTEBOOK")
    parser.add_argument("output", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="how many notebooks are executed at a time")
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help="strings")
    options = parser.parse_args()
    if unnamed := [change for change in options.set if "=" not in change]:
        raise InputError(f"--set {unnamed[0]!r}: must be NAME=VALUE")
    parameters = dict(change.split("=", 1) for change in options.set)

    def one(notebook: Path) -> None:
        print(f"notebook {notebook.stem}", flush=True)
        whole = options.output.suffix == ".ipynb"
        execute(notebook, options.output if whole else options.output / notebook.name, parameters)

    execute_all([partial(one, notebook) for notebook in options.notebooks], options.jobs)


if __name__ == "__main__":
    with one_line_errors():
        main()

"""Executing notebooks with papermill, in kernels forked from one server process that has imported the library.

    python -m glamlib.runs.notebook NOTEBOOK ... OUTPUT [--set NAME=VALUE ...] [--jobs N]
OUTPUT is a file, or a folder for the executed copies of several notebooks, N of which are executed at a time. Unknown
parameters stop a notebook before its kernel starts (papermill would only warn). A notebook that fails leaves its output
as OUTPUT.failed.ipynb and never OUTPUT itself, so `make` tries again. A forked kernel starts in 0.3 s instead of 5; the
server does nothing but import, so it is as fresh as one of its own process.
"""

import argparse
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from papermill.exceptions import PapermillExecutionError

from glamlib.errors import InputError, one_line_errors
from glamlib.runs.places import ROOT

PRELOADED = ("glamlib.runs.notebook", "glamlib.runs.run", "glamlib.report.figures", "ipykernel.kernelapp")
_CONTEXT = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the process that kernels are forked from; it imports `PRELOADED` and ends with this process."""
    _CONTEXT.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _serve(arguments: Sequence[str]) -> None:
    os.setsid()  # Ctrl-C in the terminal is for who started the kernel
    os.chdir(ROOT)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import matplotlib  # preloaded in the server, and in no other process
    from ipykernel.kernelapp import launch_new_instance

    # a kernel sets MPLBACKEND, too late: it is read when matplotlib is imported
    matplotlib.rcParams["backend"] = "module://matplotlib_inline.backend_inline"
    launch_new_instance(arguments)


class _Process(_CONTEXT.Process):
    """With the methods of `subprocess.Popen` that a provisioner calls."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    wait = poll  # called of one that has ended

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class _ForkProvisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **_: object) -> KernelConnectionInfo:
        self.process = _Process(target=_serve, args=(cmd[cmd.index("-f") :],))
        self.process.start()
        self.pid, self.pgid = self.process.pid, None
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """A kernel manager, for `nbclient.NotebookClient`, whose kernels are forked and work at the project's root."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.provisioner = _ForkProvisioner(kernel_spec=self.kernel_spec, parent=self)


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
    except (PapermillExecutionError, RuntimeError) as error:  # a kernel that was killed is a RuntimeError
        why = f"{getattr(error, 'ename', 'kernel')}: {getattr(error, 'evalue', error)}"
        raise InputError(f"{notebook.name} stopped: {why} (see {failed})") from None
    document.metadata["seconds"] = document.metadata["papermill"]["duration"]
    for part in (document, *document.cells):
        part.metadata.pop("papermill", None)  # times and paths of this machine
    nbformat.write(document, failed)
    failed.replace(output)


def execute_all(work: Iterable[Callable[[], None]], jobs: int) -> None:
    """Call all functions, which execute notebooks, ``jobs`` at a time.

    After the first error no further one is started, those at work are waited for, and the error is raised. When the
    process is interrupted, the kernels are stopped. InputError for less than one at a time.
    """
    if jobs < 1:
        raise InputError(f"JOBS={jobs}: must be at least 1")
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
                for kernel in multiprocessing.active_children():
                    kernel.terminate()
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
    if (whole := options.output.suffix == ".ipynb") and len(options.notebooks) > 1:
        raise InputError(f"{options.output}: must be a folder, for the copies of {len(options.notebooks)} notebooks")

    def one(notebook: Path) -> None:
        print(f"notebook {notebook.stem}", flush=True)
        execute(notebook, options.output if whole else options.output / notebook.name, parameters)

    execute_all([partial(one, notebook) for notebook in options.notebooks], options.jobs)


if __name__ == "__main__":
    with one_line_errors():
        main()

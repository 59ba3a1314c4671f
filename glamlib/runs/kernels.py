"""Kernels forked from one server process that has imported the library: a notebook starts in 0.3 s instead of 5.

Nothing but imports happens in the server, so a forked kernel is as fresh as one of its own process.
"""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from multiprocessing import forkserver

from jupyter_client import AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

from glamlib.runs.places import ROOT

PRELOADED = ("glamlib.runs.notebook", "glamlib.runs.run", "glamlib.report.figures", "ipykernel.kernelapp")
_CONTEXT = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the process that kernels are forked from; it imports `PRELOADED` and ends with this process."""
    _CONTEXT.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


def stop_kernels() -> None:
    """End all kernels of this process."""
    for process in multiprocessing.active_children():
        process.terminate()


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

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

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

"""Notebooks executed by papermill, in kernels forked from one process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import REPOSITORY, python, refused

from glamlib.errors import one_line_errors
from glamlib.runs.notebook import execute, execute_all, main


def wait_until(true: Callable[[], bool], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["09_cost", "--set", "profil=cpu", "--set", "results=x"], "unknown parameter of 09_cost.ipynb: 'profil'"),
        (["09_cost", "--set", "profile"], "--set 'profile': must be NAME=VALUE"),
        (["09_cost", "--jobs", "0"], "JOBS=0: must be at least 1"),
        (["09_cost", "last.ipynb"], "last.ipynb: must be a folder, for the copies of 2 notebooks"),  # OUTPUT forgotten
        (["99_none"], "notebooks/99_none.ipynb: No such file"),
    ],
)
def test_what_cannot_be_executed_is_one_line(tmp_path, monkeypatch, arguments, message):
    name, *options = arguments
    monkeypatch.setattr("sys.argv", ["", f"notebooks/{name}.ipynb", str(tmp_path / "out.ipynb"), *options])
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as error, one_line_errors():
        main()
    assert str(error.value).startswith(f"error: {message}")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "error: [Errno 28] No space left on device"),
        (FileNotFoundError(2, "No such file", "a.csv"), "error: a.csv: No such file"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_ends_a_command_is_one_line(error, said):
    with pytest.raises(SystemExit) as found, one_line_errors():
        raise error
    assert found.value.code == said


def write_notebook(path: Path, *code: str) -> Path:
    cells = [nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]}), *map(nbformat.v4.new_code_cell, code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.mark.slow
def test_failed_notebook_leaves_no_output_and_one_line(tmp_path):
    output = tmp_path / "out.ipynb"
    done = python("-m", "glamlib.runs.notebook", "notebooks/14_train.ipynb", output, "--set", "lr=1e-3")
    assert done.returncode == 1
    assert not output.exists()
    assert "parameter lr='1e-3': must be a number at least 0 (in YAML write 1.0e-3, not 1e-3)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_kernel_that_was_killed_as_where_memory_is_short_is_one_line(tmp_path):
    notebook = write_notebook(tmp_path / "a.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with refused("a.ipynb stopped: kernel: Kernel died", "b.ipynb.failed.ipynb"):
        execute_all([partial(execute, notebook, tmp_path / "b.ipynb", {})], jobs=1)
    assert (tmp_path / "b.ipynb.failed.ipynb").exists()
    assert not (tmp_path / "b.ipynb").exists()


def test_figures_are_in_the_output(tmp_path):
    notebook = write_notebook(tmp_path / "a.ipynb", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    execute_all([partial(execute, notebook, tmp_path / "b.ipynb", {})], jobs=1)
    assert "image/png" in (tmp_path / "b.ipynb").read_text()


PROGRAM = """
from functools import partial
from pathlib import Path
from glamlib.runs.notebook import execute, execute_all
if __name__ == "__main__":
    notebooks = Path(__file__).parent.glob("?.ipynb")
    execute_all([partial(execute, one, one.with_name("out-" + one.name), {}) for one in notebooks], 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_kernels_end_with_the_process_that_started_them(tmp_path, signal_number):
    """Each notebook has a kernel of its own, in which the library is there, and none outlives `make`."""
    for name in "ab":
        written = f"open('{tmp_path}/{name}', 'w').write(f'{{os.getpid()}} {{\"torch\" in sys.modules}}')"
        write_notebook(tmp_path / f"{name}.ipynb", f"import os, sys, time; {written}", "time.sleep(600)")
    (tmp_path / "program.py").write_text(PROGRAM)
    command, environment = [sys.executable, tmp_path / "program.py"], os.environ | {"PYTHONPATH": str(REPOSITORY)}
    # What is started in the background ignores SIGINT, and so would its children.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, preexec_fn=heed) as process:
        files = [tmp_path / name for name in "ab"]
        wait_until(lambda: all(file.exists() and " " in file.read_text() for file in files))
        process.send_signal(signal_number)
    (first, torch_there), (second, _) = [file.read_text().split() for file in files]
    assert first != second
    assert torch_there == "True"
    wait_until(lambda: not any(psutil.pid_exists(int(number)) for number in (first, second)))

"""Where a number comes from: digests of the code, commit, versions, device, memory and time."""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from glamlib.runs.places import ROOT

# The code that decides what a run computes: an edit elsewhere reruns nothing.
_ROOMS = ("layers", "models", "backbones", "released", "zoo.py", "data", "training", "evaluation", "runs/run.py")
COMPUTES = (*(f"glamlib/{room}" for room in _ROOMS), "notebooks/04_train.ipynb")
_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "monai", "torchmetrics", "nibabel", "numpy", "papermill")
# What a run writes itself must not make the code look changed.
_WRITTEN = (":!results", ":!README.md")


def digest(files: Iterable[Path]) -> str:
    """Return a digest of Python files, of notebooks' code and of tables; comments, formatting and docstrings apart."""
    whole = hashlib.sha256()
    for file in files:
        text = file.read_text()
        if file.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        if file.suffix != ".csv":
            tree = ast.parse(text)
            for node in ast.walk(tree):
                documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
                    del node.body[0]
            text = ast.dump(tree)
        whole.update(text.encode())
    return whole.hexdigest()[:16]


def _sources(*places: str) -> list[Path]:
    paths = [ROOT / place for place in places]
    files = [file for path in paths for file in sorted([path] if path.is_file() else path.rglob("*"))]
    return [file for file in files if file.suffix in (".py", ".csv", ".ipynb")]


@cache
def computing_digest() -> str:
    """Return the digest of the code that decides what a run computes."""
    return digest(_sources(*COMPUTES))


def whole_digest() -> str:
    """Return the digest of all code of the library."""
    return digest(_sources("glamlib"))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no clone
        return None
    return done.stdout.strip()


def commit() -> dict[str, object]:
    """Return the commit that the code is at, and whether it has changes; None for both outside a git clone."""
    head = _git("rev-parse", "HEAD")
    return {"commit": head, "dirty": bool(_git("status", "--porcelain", "--", ".", *_WRITTEN)) if head else None}


def origin() -> dict[str, object]:
    """Return what a row of a benchmark says of its code: torch's version, commit, dirty."""
    return {"torch": torch.__version__, **commit()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a number can depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def device_name(device: str) -> str:
    """Return the name of a GPU, or the processor's model and the number of cores this process may use."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):  # Linux; elsewhere the platform's name will do
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def peak_memory_mib(device: str) -> float:
    """Return the most memory this process has held, in MiB: of the GPU if it used one, else resident memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def process_seconds() -> float:
    """Return the seconds since this process started, be it by a fork of one that had imported the library."""
    return time.time() - psutil.Process().create_time()

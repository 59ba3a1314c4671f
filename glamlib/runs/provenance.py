"""Digests of the project's own code: what a run depends on, without comments, formatting and docstrings.

MERGED: Where a number comes from: commit, versions, device.
"""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from glamlib.runs.places import ROOT

TRAIN_NOTEBOOK = ROOT / "notebooks" / "04_train.ipynb"
# Modules that read what runs have written, or start them: no run depends on them.
_READERS = {
    *(
        "plan",
        "execute",
        "light_imports",
        "study",
        "studies",
        "scene_studies",
        "street_studies",
        "volume_studies",
        "schedule",
        "held_records",
        "tables",
        "cost_table",
        "statistics",
        "plots",
        "volume_plots",
        "pictures",
        "claims",
        "show",
        "confirm",
        "step_speed",
        "loader_speed",
        "standin",
        "paper_speed",
        "paper_hours",
        "speed",
        "speed_contenders",
        "speed_table",
        "speed_plots",
        "matmul_rate",
        "largest",
        "recipe",
        "slot",
        "slot_order",
        "parcel",
        "pace",
        "throughput",
    ),
    *("report", "readme", "cli", "run_commands", "predict", "saved_model", "cityscapes_server"),
    *("__main__", "check", "fetch_camvid", "pack", "add_tokens"),
}


def digest(sources: list[str], others: Iterable[str] = ()) -> str:
    """Return a digest of Python sources that comments, formatting and docstrings do not change, and of others."""
    whole = hashlib.sha256()
    for source in others:
        whole.update(source.encode())
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
            ):
                body[0].value.value = None
        whole.update(ast.dump(tree).encode())
    return whole.hexdigest()[:16]


def _notebook_code(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _modules() -> list[Path]:
    return sorted((ROOT / "glamlib").rglob("*.py"))


def _kernels() -> list[str]:
    return [file.read_text() for file in sorted((ROOT / "glamlib").rglob("*.cpp"))]


@cache
def computing_digest() -> str:
    """Return the digest of the code that decides what a run computes."""
    sources = [file.read_text() for file in _modules() if file.stem not in _READERS]
    if TRAIN_NOTEBOOK.exists():  # a library that was installed elsewhere has no notebooks beside it
        sources.append(_notebook_code(TRAIN_NOTEBOOK))
    return digest(sources, _kernels())


def whole_digest() -> str:
    """Return the digest of all code of the library."""
    return digest([file.read_text() for file in _modules()], _kernels())


_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "fvcore", "papermill")
# What a run writes itself must not make the code look changed.
_WRITTEN = (":!results", ":!README.md")


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> dict[str, object]:
    """Return the commit that the code is at, and whether it has changes; None for both outside a git clone."""
    try:
        head = _git("rev-parse", "HEAD")
    except FileNotFoundError:  # no git
        head = None
    return {"commit": head, "dirty": bool(_git("status", "--porcelain", "--", ".", *_WRITTEN)) if head else None}


def origin() -> dict[str, object]:
    """Return what a row of a benchmark says of its code: torch's version, commit, dirty."""
    return {"torch": torch.__version__, **commit()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a number can depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def device_name(device: str) -> str:
    """Return the name of a GPU, or the processor's model and the number of cores this process may use."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo") as file:  # Linux; elsewhere the platform's name will do
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def peak_memory_mib(device: str) -> float:
    """Return the most memory this process has held: of the GPU if it used one, else resident memory; in MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

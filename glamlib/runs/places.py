"""Where the files of a run lie, and where its numbers come from: digests of the code, commit, versions, device."""

import ast
import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from glamlib.studies.parameters import RunParameters

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = "checkpoint.safetensors"  # in a run's folder until its record is written; git ignores it
# The code that decides what a run computes: an edit elsewhere reruns nothing.
_ROOMS = ("layers", "models", "backbones", "released", "zoo.py", "data", "training", "evaluation", "runs/run.py")
COMPUTES = (*(f"glamlib/{room}" for room in _ROOMS), "notebooks/14_train.ipynb")
_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "monai", "torchmetrics", "nibabel", "numpy", "papermill")


def results_folder(results: str) -> Path:
    """Return the results folder that a notebook's ``results`` names: a path below the project, or an absolute one."""
    return ROOT / results


def run_folder(results: Path, run: RunParameters) -> Path:
    """Return ``results/runs/STUDY/VARIANT/seed-K``."""
    return results / "runs" / run.study / run.variant / f"seed-{run.seed}"


def imagenet_file(model: str) -> Path | None:
    """Return GLAM_DATA/weights/swin_SIZE_patch4_window7_224.safetensors or .pth, of a model's size; None if absent."""
    size, folder = re.search(r"swin_(tiny|small|base)_", model), os.environ.get("GLAM_DATA")
    if not size or not folder:
        return None
    name = Path(folder) / "weights" / f"swin_{size[1]}_patch4_window7_224"
    return next((file for end in (".safetensors", ".pth") if (file := name.with_suffix(end)).is_file()), None)


def digest(*places: str) -> str:
    """Return a digest of Python (without comments, format, docstrings), notebooks, tables and pages below places."""
    whole = hashlib.sha256()
    files = (file for place in places for file in sorted([ROOT / place, *(ROOT / place).rglob("*")]))
    for file in (one for one in files if one.is_file() and "/." not in str(one.relative_to(ROOT))):  # no editor's copy
        if file.suffix in (".csv", ".toml", ".html"):
            whole.update(file.read_bytes())
        elif file.suffix in (".py", ".ipynb"):
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".ipynb":
                cells = json.loads(text)["cells"]
                text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            tree = ast.parse(text)
            for node in ast.walk(tree):
                documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
                    del node.body[0]
            # Pythons differ in which empty lists there are, and in whether they are written
            whole.update(re.sub(r"(, )?\w+=\[\]", "", ast.dump(tree)).replace("(, ", "(").encode())
    return whole.hexdigest()[:16]


@cache
def computing_digest() -> str:
    """Return the digest of the code that decides what a run computes."""
    return digest(*COMPUTES)


def commit() -> dict[str, object]:
    """Return the commit that the code is at, and whether it has changes; None for both outside a git clone."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # not the clone that a copy may lie in
    git = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    try:
        head = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        # what lies beside the code, such as results, must not make it look changed
        changes = git(["git", "status", "--porcelain", "--", "glamlib", "notebooks", "requirements.lock"]).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or no clone
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": bool(changes)}


def device_name(device: str) -> str:
    """Return the name of a GPU, or the processor's model and the number of cores this process may use."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    file = Path("/proc/cpuinfo")  # of Linux; elsewhere the platform's name will do
    model = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model[1] if model else platform.processor() or platform.machine()}, {cores} cores"


def peak_memory_mib(device: str) -> float:
    """Return the most memory this process has held since the last call, in MiB: of the GPU, or resident memory."""
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    with suppress(OSError):  # of Linux; elsewhere it is the most since the process began
        Path("/proc/self/clear_refs").write_text("5")
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def made_by(device: str) -> dict[str, object]:
    """Return how and where this process's numbers are made; its seconds count from its start, be it by a fork."""
    return {
        "seconds": time.time() - psutil.Process().create_time(),
        "peak_memory_mib": peak_memory_mib(device),
        "device": device_name(device),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
        **commit(),
    }

"""Where a number comes from: commit, versions, device."""

import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

from .places import ROOT

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

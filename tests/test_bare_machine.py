"""The whole path of a lent machine, at tiny size: run twice under a budget with nothing installed, then merge."""

import json
import os
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from glamlib.study import parcel
from glamlib.study.slot import PARCEL
from glamlib.study.tables import write_tables

# What such a machine has, beside what these need themselves
THERE = ("torch", "timm", "einops", "accelerate", "safetensors", "numpy", "pandas", "pillow")
# Runs a module of ours where the packages argv[1] cannot be imported.
_PROGRAM = """
import runpy, sys
from importlib.machinery import PathFinder
absent = set(sys.argv[1].split(","))

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def needed(names: tuple[str, ...]) -> set[str]:
    """Return the distributions that some need, with all that these need, whatever extras leave out."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            for line in distribution(name).requires or []:
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    waiting.append(requirement.name)
    return found


def modules(there: bool) -> set[str]:
    """Return the top-level modules installed here that such a machine has, or those that it has not."""
    owned = needed(THERE)
    return {
        module
        for module, owners in packages_distributions().items()
        if module != "glamlib" and there == bool({canonicalize_name(owner) for owner in owners} & owned)
    }


def bare(module: str, *arguments: str, data: str = "") -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLAM_DATA": data}
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, ",".join(modules(there=False)), module, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def slot(folder: Path, budget: float, study: str, data: str = "") -> subprocess.CompletedProcess:
    places = ("--out", f"{folder}/out", "--work", f"{folder}/work", "--results", f"{folder}/results")
    options = ("--budget", str(budget), "--profile", "quick", "--study", study)
    return bare("glamlib.study.slot", *options, *places, data=data)


def test_a_bare_machine_has_what_it_is_said_to_have() -> None:
    assert {"torch", "timm", "einops", "accelerate", "safetensors", "numpy", "pandas", "PIL"} <= modules(there=True)
    absent = {"fvcore", "papermill", "tyro", "monai", "nibabel", "scipy", "matplotlib", "seaborn"}
    assert absent <= modules(there=False)


@pytest.mark.slow
def test_two_slots_and_the_way_home(tmp_path: Path) -> None:
    """The first slot is too short for all, the second goes on; merged, the records make the study's tables."""
    first = slot(tmp_path, 12, "context")
    assert first.returncode == 0, first.stderr
    assert "8 runs and 0 speed groups are missing" in first.stdout
    done = sorted((tmp_path / "work").rglob("record.json"))
    assert len(done) < 8
    assert f"{8 - len(done)} left over" in first.stdout
    times = [file.stat().st_mtime_ns for file in done]

    second = slot(tmp_path, 600, "context")
    assert second.returncode == 0, second.stderr
    assert f"{8 - len(done)} runs and 0 speed groups are missing" in second.stdout
    assert "0 left over" in second.stdout
    assert [file.stat().st_mtime_ns for file in done] == times

    records = parcel.unpack(tmp_path / "out" / PARCEL, tmp_path / "results")
    assert len(records) == 8
    write_tables(tmp_path / "results", "context")
    assert len((tmp_path / "results/tables/context.csv").read_text().splitlines()) == 9
    third = slot(tmp_path, 12, "context")
    assert "0 runs and 0 speed groups are missing" in third.stdout

    record = json.loads(records[0].read_text())
    assert record["versions"]["torch"]
    assert record["metrics"]["confusion"]
    assert record["cost"]["gmacs"]["total"] > 0


@pytest.mark.slow
def test_real_images_on_a_bare_machine(tmp_path: Path, data_root: Path) -> None:
    done = slot(tmp_path, 45, "camvid", data=str(data_root))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "work").rglob("record.json"))

"""Where a study's files lie, below the folder that holds the project."""

from pathlib import Path

from .parameters import RunParameters

ROOT = Path(__file__).resolve().parents[2]


def results_folder(results: str) -> Path:
    """Return the results folder that a notebook's ``results`` names: a path below the project, or an absolute one."""
    return ROOT / results


def run_folder(results: Path, run: RunParameters) -> Path:
    """Return ``results/runs/STUDY/VARIANT/seed-K``."""
    return results / "runs" / run.study / run.variant / f"seed-{run.seed}"


def checkpoint_file(run: RunParameters) -> Path:
    """Return where a run keeps its checkpoint: never among the results, which hold no weights."""
    return ROOT / "build" / "checkpoints" / run.profile / run.study / run.variant / f"seed-{run.seed}.safetensors"

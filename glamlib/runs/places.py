"""Where the files of a run lie."""

import os
import re
from pathlib import Path

from glamlib.studies.parameters import RunParameters

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = "checkpoint.safetensors"  # in a run's folder until its record is written; git ignores it


def results_folder(results: str) -> Path:
    """Return the results folder that a notebook's ``results`` names: a path below the project, or an absolute one."""
    return ROOT / results


def run_folder(results: Path, run: RunParameters) -> Path:
    """Return ``results/runs/STUDY/VARIANT/seed-K``."""
    return results / "runs" / run.study / run.variant / f"seed-{run.seed}"


def imagenet_file(model: str) -> Path | None:
    """Return GLAM_DATA/weights/swin_SIZE_patch4_window7_224.safetensors or .pth, of a model's size; None if absent."""
    size, folder = re.search(r"_(tiny|small|base)_", model), os.environ.get("GLAM_DATA")
    if not size or not folder:
        return None
    name = Path(folder) / "weights" / f"swin_{size[1]}_patch4_window7_224"
    return next((file for end in (".safetensors", ".pth") if (file := name.with_suffix(end)).is_file()), None)

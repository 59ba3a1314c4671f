"""Where a study's files lie, below the folder that holds the project."""

import os
import re
from pathlib import Path

from glamlib.studies.parameters import RunParameters

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


def imagenet_file(model: str) -> Path | None:
    """Return the file of Swin's ImageNet weights for a model's size: GLAM_DATA/weights/, under the name that Microsoft
    and timm give it, safetensors or pth; None where there is none, and timm would have to fetch them.
    """
    size = re.search(r"_(tiny|small|base)_", model)
    if not size or not os.environ.get("GLAM_DATA"):
        return None
    name = Path(os.environ["GLAM_DATA"]) / "weights" / f"swin_{size[1]}_patch4_window7_224"
    found = (name.with_suffix(suffix) for suffix in (".safetensors", ".pth"))
    return next((file for file in found if file.is_file()), None)

"""What the tests share: one thread, and the released code's reference tensors where they lie beside the project."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import glamlib.torchvision_schemas  # noqa: F401  (before any test imports timm)

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"


def reference(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return the tensors (float32) and constructor arguments of one released module; skips where they are absent."""
    file = REFERENCE / "tensors" / f"{name}.safetensors"
    if not file.is_file():
        pytest.skip("the released code's reference tensors are not beside this clone")
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in load_file(file).items()}
    return tensors, reference_details(name)["arguments"]


def reference_details(name: str) -> dict:
    """Return all that is said of one released module: see the reference's README."""
    return json.loads((REFERENCE / "tensors" / f"{name}.json").read_text())


@pytest.fixture
def data_root() -> Path:
    """The folder of real data; skips where there is none."""
    root = Path(os.environ.get("GLAM_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (root / "camvid").is_dir():
        pytest.skip("no real data: set GLAM_DATA")
    return root

"""Digests of the project's own code: what a run depends on, without comments, formatting and docstrings."""

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from .places import ROOT

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

"""Notebooks as git holds them: stripped, short cells, a parameters cell that is checked at once."""

import json
import re
import statistics
from pathlib import Path

import pytest
from conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_notebooks_are_numbered_without_a_gap_and_cells_are_short():
    lengths = [len("".join(cell["source"]).splitlines()) for path in NOTEBOOKS for cell in cells(path, "code")]
    assert statistics.median(lengths) <= 8
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(len(NOTEBOOKS))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    code = cells(path, "code")
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        most = 30 if "parameters" in cell["metadata"].get("tags", []) else 20  # a parameter a line
        assert len("".join(cell["source"]).splitlines()) <= most
    tagged = [number for number, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", [])]
    assert tagged == [0], "the first code cell, and no other, is the parameters cell"
    check = "".join(code[1]["source"])
    assert "notebook_parameters(globals()" in check or "from_notebook(globals()" in check
    assert len(cells(path, "markdown")) >= 0.4 * len(code), "prose between the cells"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        text = "".join(cell["source"])
        links = [path.parent / target for target in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
        links += [REPOSITORY / target for target in re.findall(r"`((?:glamlib|tests|results)/[\w/.]+)`", text)]
        for target in links:
            assert target.exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "results" / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_executed_copy(path):
    assert path.stat().st_size < 1_000_000
    text = path.read_text()
    assert str(REPOSITORY) not in text
    executed = [cell for cell in cells(path, "code") if "".join(cell["source"]).strip()]
    assert all(cell["execution_count"] for cell in executed), "a cell was not run"
    assert not any(output["output_type"] == "error" for cell in executed for output in cell["outputs"])

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


def test_the_start_page_lists_all_notebooks():
    page = "\n".join("".join(cell["source"]) for cell in cells(NOTEBOOKS[0], "markdown"))
    assert [f"{name}.ipynb" for name in re.findall(r"^\| \[?(\d\d_\w+)", page, re.M)] == [p.name for p in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS[:-1], ids=lambda path: path.stem)  # all but the report
def test_figures_say_what_to_see_and_the_end_what_was_learned(path):
    """Each section that draws has such a sentence; three lines and two exercises with solutions end a notebook."""
    text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    for section in text.split("\n## "):
        if re.search(r"plt\.subplots|figures\.save\(|where_it_looks\(|show_image\(", section.replace("def ", "")):
            assert "What to see" in section, section[:60]
    end = text.partition("\n## What to take away\n")[2]
    learned, _, exercises = end.partition("**Exercises**")
    assert len(re.findall(r"^ *f?\"?- ", learned, re.M)) == 3 or "claims_markdown" in learned
    assert re.findall(r"^(\d)\. ", exercises, re.M) == ["1", "2", "1", "2"]
    assert "<details><summary>Solutions</summary>" in exercises


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
    assert path.stat().st_size < 1_200_000
    text = path.read_text()
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)  # of whatever machine
    markdown = "".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", markdown):
        assert (path.parent / target).exists(), target
    executed = [cell for cell in cells(path, "code") if "".join(cell["source"]).strip()]
    assert all(cell["execution_count"] for cell in executed), "a cell was not run"
    assert not any(output["output_type"] == "error" for cell in executed for output in cell["outputs"])

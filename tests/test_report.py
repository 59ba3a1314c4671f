"""README and report hold what the tables hold, and need nothing else."""

import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from glamlib import studies
from glamlib.errors import InputError
from glamlib.report import page, tables

NAN = float("nan")


def test_a_study_without_result_says_why() -> None:
    assert tables.why_not_run(studies.VOLUMES_BRAINS, "cpu") == (
        "Study volumes_brains is not part of profile cpu, only of gpu."
    )
    assert "the camvid data were not there" in tables.why_not_run(studies.CAMVID, "cpu")
    assert "has not run yet" in tables.study_markdown(Path("nowhere"), studies.CONTEXT, "cpu")


def test_a_summary_is_formatted_for_readers() -> None:
    row = {"study": "context", "n": 3, "miou": 0.5, "miou_low": 0.4, "miou_high": 0.6, "gmacs": 0.0123}
    row |= {"gain": NAN, "gain_low": NAN, "gain_high": NAN, "hd95_mm": NAN, "parameters": 12345}
    one = row | {"n": 1, "miou_low": NAN, "miou_high": NAN, "gain": 0.2, "hd95_mm": 1.234}
    summary = pd.DataFrame(
        [
            row | {"variant": "swin", "label": "Swin"},
            one | {"variant": "glam_1", "label": "GLAM"},
            one | {"variant": "full", "label": "Full", "gain": NAN},
        ]
    )
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in tables.summary_markdown(summary, studies.CONTEXT).splitlines()
    ]
    titles = ["variant", "mIoU", "95 % interval", "against baseline", "HD95 (mm)", "M multiply-adds", "parameters"]
    assert lines[0] == titles
    assert lines[2:] == [
        ["Swin", "0.500", "0.400 to 0.600", "baseline", "undefined", "12.3", "12,345"],
        ["GLAM", "0.500", "one seed", "+0.200", "1.23", "12.3", "12,345"],
        ["Full", "0.500", "one seed", "-", "1.23", "12.3", "12,345"],
    ]


def test_readme_holds_the_committed_result() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert page.with_headline(text, page.headline(REPOSITORY / "results")) == text
    with pytest.raises(InputError, match=r"the markers .* are missing"):
        page.with_headline("# A project", "table")


def test_report_is_one_file_without_code(tmp_path: Path) -> None:
    outputs = [new_output("display_data", {"image/png": "iVBORw0KGgo="})]
    outputs.append(new_output("display_data", {"text/markdown": "| a | b |\n|:---|---:|\n| x | 1 |"}))
    cells = [new_markdown_cell("# Title"), new_code_cell("secret = 1", outputs=outputs, execution_count=1)]
    notebook, report = tmp_path / "in.ipynb", tmp_path / "report.html"
    notebook.write_text(writes(new_notebook(cells=cells)))
    page.main("report", str(notebook), str(report))
    html = report.read_text()
    assert "secret" not in html
    assert "data:image/png;base64" in html
    assert 'name="viewport"' in html
    assert "<td" in html
    check_self_contained(html)


def check_self_contained(html: str) -> None:
    """Nothing is fetched: no script, style sheet or picture from elsewhere (links that a reader follows are fine)."""
    assert not re.search(r"<script|<link|@import|url\(", html)
    assert all(source.startswith("data:") for source in re.findall(r"<img[^>]*src=\"([^\"]*)\"", html))


def test_committed_report_is_self_contained() -> None:
    check_self_contained((REPOSITORY / "results" / "report.html").read_text())

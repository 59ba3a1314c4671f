"""README and report hold what the tables hold, and need nothing else."""

import re
from pathlib import Path

import pandas as pd
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from glamlib import studies
from glamlib.errors import InputError
from glamlib.report import page, tables

NAN = float("nan")


def test_a_study_without_result_says_why() -> None:
    assert tables.why_not_run(studies.find_study("volumes_brains"), "cpu") == (
        "Study volumes_brains is not part of profile cpu, only of night."
    )
    for name, data in (("camvid", "camvid"), ("volumes_brains", "brains"), ("volumes_hippocampus", "hippocampus")):
        said = f"the {data} data were not there (set GLAM_DATA, or fetch them with make {data})"
        assert said in tables.why_not_run(studies.find_study(name), "night")
    assert "has not run yet" in tables.study_markdown(Path("nowhere"), studies.find_study("context"), "cpu")


def test_a_summary_is_formatted_for_readers() -> None:
    row = {"study": "camvid", "n": 3, "miou": 0.5, "miou_low": 0.4, "miou_high": 0.6, "gmacs": 0.0123}
    row |= {"gain": NAN, "gain_low": NAN, "gain_high": NAN, "hd95_mm": NAN, "parameters": 12345}
    one = row | {"n": 1, "miou_low": NAN, "miou_high": NAN, "gain": 0.2, "hd95_mm": 1.234}
    rows = [row | {"variant": "swin", "label": "Swin"}, one | {"variant": "glam_1", "label": "GLAM"}]
    summary = pd.DataFrame([*rows, one | {"variant": "full", "label": "Full", "gain": NAN}])
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in tables.summary_markdown(summary, studies.find_study("camvid")).splitlines()
    ]
    titles = ["variant", "mIoU", "95 % interval", "against baseline", "HD95 (mm)", "M multiply-adds", "parameters"]
    assert lines[0] == titles
    assert lines[2:] == [
        ["Swin", "0.500", "0.400 to 0.600", "baseline", "undefined", "12.3", "12,345"],
        ["GLAM", "0.500", "one seed", "+0.200", "1.23", "12.3", "12,345"],
        ["Full", "0.500", "one seed", "-", "1.23", "12.3", "12,345"],
    ]


def test_the_readme_changes_between_its_markers_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# A project\n{page.BEGIN}old{page.END}\nend\n")
    for _ in range(2):
        page.write_headline(readme, tmp_path / "results")
    before, written, after = re.split(f"{page.BEGIN}|{page.END}", readme.read_text())
    assert (before, after) == ("# A project\n", "\nend\n")
    assert written.count("**Not tested**: ") == 3  # camvid, hippocampus and brains, of which there are no results
    readme.write_text("# A project")
    with pytest.raises(InputError, match=r"the markers .* are missing"):
        page.write_headline(readme, tmp_path / "results")


PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
PROSE = """# Title

Words of $x_1$ and $$ \\frac{a}{b} $$ are in [the first](00_first.ipynb).

<details><summary>More</summary>

folded

</details>

## Section"""


def executed() -> NotebookNode:
    table = "| a | b | c | d |\n|:--|--:|--:|--:|\n| x | 1 | 2 | 3 |"
    outputs = [new_output("display_data", data) for data in ({"image/png": PICTURE}, {"text/markdown": table})]
    cells = [new_markdown_cell(PROSE), new_code_cell("secret = 1", outputs=outputs, execution_count=1)]
    return new_notebook(cells=[*cells, new_markdown_cell("## Another")])


def test_report_is_one_file_without_code(tmp_path: Path) -> None:
    """Formulas are MathML, pictures are described, a table hides no more than its box shows again."""
    notebook, report = tmp_path / "in.ipynb", tmp_path / "report.html"
    notebook.write_text(writes(executed()))
    page.write_report(notebook, report)
    html = report.read_text()
    assert "secret" not in html
    assert "$" not in html
    assert (html.count("<msub>"), html.count("<mfrac>")) == (1, 1)
    assert re.search(r'<img alt="Figure of the section: Section"[^>]* src="data:image/', html)
    assert 'name="viewport"' in html
    assert "all 4 columns</label>" in html
    assert re.search(r"<details><summary>More</summary>\s*<p>folded</p>\s*</details>", html)
    assert re.findall(r'<li><a href="#(.*?)">', html) == ["Section", "Another"]  # the contents
    check_self_contained(html)


@pytest.mark.parametrize("order", ["tp tp", "pt pt", "ptt", "tpp"])
def test_pictures_are_described_by_the_sentence_that_says_what_to_see(order: str) -> None:
    """It stands before its picture (p), or after it in a section that begins with a picture; two may share one."""
    cells, count = [new_markdown_cell("# Title\n\n## Section")], 0
    for kind in order.replace(" ", ""):
        count += kind == "t"
        picture = [new_output("display_data", {"image/png": PICTURE})]
        text = new_markdown_cell(f"Scene. What to see: number {count}.")
        cells.append(text if kind == "t" else new_code_cell(outputs=picture, execution_count=1))
    found = re.findall(r'<img alt="What to see: number (\d).', page.page_html(new_notebook(cells=cells), "title"))
    assert found == {"tp tp": ["1", "2"], "pt pt": ["1", "2"], "ptt": ["1"], "tpp": ["1", "1"]}[order]


def test_site_links_all_notebooks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no executed notebooks"):
        page.write_site(tmp_path, tmp_path / "site")
    (tmp_path / "notebooks").mkdir()
    for name in ("00_first", "01_second"):
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(writes(executed()))
    with pytest.raises(InputError, match=r"no report\.html"):  # to which every page would link
        page.write_site(tmp_path, tmp_path / "site")
    (tmp_path / "report.html").write_text("report")
    (tmp_path / "notebooks/02_third.ipynb.failed.ipynb").write_text("it stopped")
    page.write_site(tmp_path, tmp_path / "site")
    pages = {file.name: file.read_text() for file in (tmp_path / "site").iterdir()}
    assert "00 · Title" in pages["index.html"]
    assert pages.keys() == {"index.html", "00_first.html", "01_second.html", "report.html"}
    assert "secret" in pages["00_first.html"]
    for html in pages.values():
        check_self_contained(html)
        assert set(re.findall(r'href="([^"#]+)"', html)) <= pages.keys()


def check_self_contained(html: str) -> None:
    """Nothing is fetched: no script, style sheet or picture from elsewhere (links that a reader follows are fine)."""
    assert not re.search(r"<script|<link|@import|url\(", html)
    assert all(source.startswith("data:") for source in re.findall(r"<img[^>]*src=\"([^\"]*)\"", html))

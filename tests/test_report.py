"""Claims follow from intervals by rule; README and report hold what the tables hold, and need nothing else."""

import re
from html import unescape

import pandas as pd
import pytest
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from glamlib import studies
from glamlib.errors import InputError
from glamlib.report import claims, page, tables
from glamlib.report.page import report_html
from glamlib.report.statistics import Interval


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, claims.SUPPORTED), (-0.2, -0.01, claims.NOT_SUPPORTED), (-0.1, 0.1, claims.UNDECIDED)],
)
def test_verdict_follows_from_the_interval(low: float, high: float, verdict: str) -> None:
    assert claims.verdict_of_gain(Interval(3, (low + high) / 2, low, high)) == verdict


def test_a_study_without_result_says_why() -> None:
    assert tables.why_not_run("volumes_brains", "cpu") == (
        "**Not run at profile `cpu`**: study `volumes_brains` has the profiles gpu."
    )
    assert "the camvid data were not there" in tables.why_not_run("camvid", "cpu")
    assert "waits for `make reproduce`" in tables.why_not_run("context", "cpu")


def test_one_seed_decides_nothing() -> None:
    assert claims.verdict_of_gain(Interval(1, 0.5, float("nan"), float("nan"))) == claims.UNDECIDED


def runs(**miou: list[float]) -> pd.DataFrame:
    rows = [
        {"variant": variant, "seed": seed, "miou": value, "gmacs": 2.0 if variant == "glam_10" else 1.0}
        | {"g_msa_gmacs": 0.1, "parameters": 100, "height": 64, "width": 64}
        for variant, values in miou.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_claims_without_runs_are_not_tested_and_say_why() -> None:
    for claim in claims.claims(None, None):
        assert claim.verdict == claims.NOT_TESTED
        assert claim.measured


def test_claims_report_where_glam_does_not_win() -> None:
    context = runs(swin=[0.5, 0.5, 0.5], tokens_2=[0.5, 0.51, 0.5], glam_2=[0.9, 0.91, 0.9], full=[0.92, 0.92, 0.92])
    street = runs(swin=[0.4, 0.4, 0.4], glam_10=[0.3, 0.31, 0.3])
    found = {claim.claim: claim for claim in claims.claims(context, street)}
    by_word = {
        word: next(claim for text, claim in found.items() if word in text) for word in ("whole", "street", "full a")
    }
    assert by_word["whole"].verdict == claims.SUPPORTED
    assert by_word["whole"].interval.mean == pytest.approx(0.4033, abs=1e-3)
    assert by_word["street"].verdict == claims.NOT_SUPPORTED
    assert "-0.097" in by_word["street"].measured
    assert by_word["full a"].verdict == claims.SUPPORTED  # 0.017 below, within the margin of 0.05


def test_readme_holds_what_the_committed_tables_hold() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert page.with_headline(text, page.headline(REPOSITORY / "results")) == text


def test_readme_without_markers_is_refused() -> None:
    with pytest.raises(InputError, match=r"the markers .* are missing"):
        page.with_headline("# A project", "table")


def test_summary_is_formatted_once_and_the_same_everywhere() -> None:
    summary = pd.DataFrame(
        [
            {"label": "Swin", "n": 3, "miou": 0.5, "miou_low": 0.4, "miou_high": 0.6, "gain": float("nan")}
            | {"gain_low": float("nan"), "gain_high": float("nan"), "gmacs": 0.0123, "parameters": 12345},
            {"label": "A < B", "n": 1, "miou": 0.7, "miou_low": float("nan"), "miou_high": float("nan"), "gain": 0.2}
            | {"gain_low": float("nan"), "gain_high": float("nan"), "gmacs": 0.02, "parameters": 20},
        ]
    )
    assert tables.summary_markdown(summary).splitlines()[2:] == [
        "| Swin | 0.500 | 0.400 to 0.600 | baseline | 12.3 | 12,345 |",
        "| A < B | 0.700 | one seed | +0.200 | 20.0 | 20 |",
    ]
    assert "A &lt; B" in tables.summary_html(summary)
    assert "right class" not in tables.summary_html(summary)


def test_report_is_one_file_without_code(tmp_path) -> None:
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo="})
    notebook = new_notebook(
        cells=[new_markdown_cell("# Title"), new_code_cell("secret = 1", outputs=[picture], execution_count=1)]
    )
    path = tmp_path / "in.ipynb"
    path.write_text(writes(notebook))
    page = report_html(path, "The report")
    assert "secret" not in page
    assert "data:image/png;base64" in page
    assert 'name="viewport"' in page
    check_self_contained(page)


def check_self_contained(page: str) -> None:
    """Nothing is fetched: no script, style sheet or picture from elsewhere (links that a reader follows are fine)."""
    assert not re.search(r"<script|<link|@import|url\(", page)
    assert all(source.startswith("data:") for source in re.findall(r"<img[^>]*src=\"([^\"]*)\"", page))


def test_committed_report_is_self_contained_and_current() -> None:
    page = (REPOSITORY / "results" / "report.html").read_text()
    check_self_contained(page)
    for study in (name for name, study in studies.STUDIES.items() if "cpu" in study.profiles):
        summary = pd.read_csv(REPOSITORY / "results" / "tables" / f"{study}_summary.csv")
        assert unescape(tables.summary_html(summary)) in unescape(page), (
            f"the report's table of {study} is not the one in results/tables"
        )

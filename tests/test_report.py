"""Claims follow from intervals by rule; README and report hold what the tables hold, and need nothing else."""

import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from glamlib import studies
from glamlib.errors import InputError
from glamlib.report import claims, page, tables
from glamlib.report.statistics import Interval

NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.01, 0.2, 0, claims.SUPPORTED),
        (-0.2, -0.01, 0, claims.CONTRADICTED),
        (-0.1, 0.1, 0, claims.INCONCLUSIVE),
        (-0.04, 0.1, 0.05, claims.SUPPORTED),
        (-0.2, -0.06, 0.05, claims.CONTRADICTED),
        (NAN, NAN, 0, claims.INCONCLUSIVE),
    ],
)
def test_a_verdict_follows_from_the_interval(low: float, high: float, margin: float, verdict: str) -> None:
    assert claims.verdict(Interval(3, 0.5, low, high), margin) == verdict


def test_a_study_without_result_says_why() -> None:
    assert tables.why_not_run(studies.VOLUMES_BRAINS, "cpu") == (
        "Study volumes_brains is not part of profile cpu, only of gpu."
    )
    assert "the camvid data were not there" in tables.why_not_run(studies.CAMVID, "cpu")
    assert "has not run yet" in tables.study_markdown(Path("nowhere"), studies.CONTEXT, "cpu")


def runs(metric: str = "miou", **values: list[float]) -> pd.DataFrame:
    rows = [
        {"variant": variant, "seed": seed, metric: value, "gmacs": 2.0 if variant == "glam_10" else 1.0}
        | {"g_msa_gmacs": 0.1, "parameters": 100, "height": 64, "width": 64}
        for variant, scores in values.items()
        for seed, value in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_claims_without_runs_are_not_tested_and_say_why() -> None:
    judged = claims.judged({}, "cpu")
    assert set(judged["verdict"]) == {claims.NOT_TESTED}
    assert judged["measured"].str.len().min() > 0


def test_every_claim_names_a_study_and_its_variants() -> None:
    for claim in claims.CLAIMS.itertuples():
        assert not claim.study or {claim.variant, claim.other} <= set(studies.STUDIES[claim.study].variants)


def test_claims_report_where_glam_does_not_win() -> None:
    context = runs(swin=[0.5, 0.5, 0.5], tokens_2=[0.5, 0.51, 0.5], glam_2=[0.9, 0.91, 0.9], full=[0.92, 0.92, 0.92])
    street = runs(swin=[0.4, 0.4, 0.4], glam_10=[0.3, 0.31, 0.3])
    judged = claims.judged({"context": context, "camvid": street}, "cpu").set_index("claim")
    found = {word: next(row for claim, row in judged.iterrows() if word in claim) for word in ("whole", "Nano", "full")}
    assert found["whole"].verdict == claims.SUPPORTED
    assert "+0.403 mIoU" in found["whole"].measured
    assert found["Nano"].verdict == claims.CONTRADICTED
    assert "-0.097" in found["Nano"].measured
    assert found["full"].verdict == claims.SUPPORTED  # 0.017 below, within the margin of 0.05
    assert "2.00 times Swin's multiply-adds" in judged["measured"].iloc[-1]
    assert all(text in claims.claims_html(judged.reset_index()) for text in judged["measured"].str.replace("<", "&lt;"))


def test_comparisons_give_interval_and_verdict() -> None:
    """Differences 0.1, 0.2 and 0.3: mean 0.2, deviation 0.1, so 0.2 -+ 4.302653 * 0.1 / sqrt(3)."""
    table = runs(swin=[0.4, 0.4, 0.4], glam_10_high=[0.5, 0.6, 0.7], pvt_v2=[0.39, 0.39, 0.39], vit=[0.5])
    pairs = [("glam_10_high", "swin"), ("swin", "pvt_v2"), ("vit", "swin"), ("glam_10", "swin")]
    assert claims.comparisons(studies.CAMVID_ARCHITECTURES, table, pairs).splitlines() == [
        "- 10 tokens at 1/4 and 1/8 only against Swin: +0.200 mIoU (95 % interval -0.048 to +0.448, 3 seeds, paired): "
        "inconclusive as better",
        "- Swin against PVT v2: +0.010 mIoU (95 % interval +0.010 to +0.010, 3 seeds, paired): supported as better",
        "- ViT (full attention) against Swin: +0.100 mIoU (one seed, so no interval): inconclusive as better",
        "- GLAM, 10 tokens against Swin: no seed that both have run",
    ]
    table = runs("dice", nnformer=[0.5, 0.6], glam_10=[0.7, 0.8]).assign(miou=0.0)
    assert "+0.200 Dice" in claims.comparisons(studies.VOLUMES_HIPPOCAMPUS, table, [("glam_10", "nnformer")])


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

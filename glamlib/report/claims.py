"""The paper's claims (claims.csv), and verdicts that follow from intervals by rule."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from glamlib.report.statistics import Interval, paired_difference
from glamlib.report.tables import METRIC_NAMES, why_not_run
from glamlib.studies import STUDIES
from glamlib.studies.study import Study

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested here"


# A claim says: in a study, ``variant`` scores higher than ``other``, or no more than ``margin`` lower. One without a
# study is not tested here, and ``measured`` says why.
CLAIMS = pd.read_csv(Path(__file__).with_name("claims.csv"), keep_default_na=False)


def verdict(gain: Interval, margin: float = 0.0) -> str:
    """Return the verdict on "better, or worse by less than ``margin``" from the interval of a difference."""
    if gain.low > -margin:
        return SUPPORTED
    return CONTRADICTED if gain.high < -margin else INCONCLUSIVE  # one seed has no interval: inconclusive


def judged(tables: Mapping[str, pd.DataFrame | None], profile: str) -> pd.DataFrame:
    """Return the columns claim, measured and verdict, one row a claim.

    Args:
        tables: the run table of each study by name; None or missing where it has not run.
        profile: which one the tables are of, to say why a study is missing.
    """
    rows = [(row.claim, *_judged(row, tables.get(row.study), profile)) for row in CLAIMS.itertuples()]
    rows.append(("Global tokens cost little beside the model they are put into.", *_small_cost(tables)))
    return pd.DataFrame(rows, columns=["claim", "measured", "verdict"])


def _judged(claim: tuple, runs: pd.DataFrame | None, profile: str) -> tuple[str, str]:
    if not claim.study:
        return claim.measured, NOT_TESTED
    study = STUDIES[claim.study]
    if runs is None:
        return why_not_run(study, profile), NOT_TESTED
    gain = paired_difference(runs, claim.variant, claim.other, study.metric)
    if not gain.n:
        return f"{claim.measured}: no seed that both have run", NOT_TESTED
    return f"{claim.measured}: {_words(gain, study.metric)}", verdict(gain, claim.margin)


def _words(gain: Interval, metric: str) -> str:
    difference = f"{gain.mean:+.3f} {METRIC_NAMES[metric]}"
    if gain.n < 2:
        return f"{difference} (one seed, so no interval)"
    return f"{difference} (95 % interval {gain.low:+.3f} to {gain.high:+.3f}, {gain.n} seeds, paired)"


def _small_cost(tables: Mapping[str, pd.DataFrame | None]) -> tuple[str, str]:
    study, variant = ("camvid", "glam_10") if tables.get("camvid") is not None else ("context", "glam_2")
    runs = tables.get(study)
    if runs is None or not {variant, "swin"} <= set(runs["variant"]):
        return "no study has run", NOT_TESTED
    rows = runs.drop_duplicates("variant").set_index("variant")
    glam, swin = rows.loc[variant], rows.loc["swin"]
    measured = (
        f"study {study}, {glam['height']}x{glam['width']} px: {glam['gmacs'] / swin['gmacs']:.2f} times Swin's "
        f"multiply-adds and {glam['parameters'] / swin['parameters']:.2f} times its parameters with "
        f"{variant.removeprefix('glam_')} tokens a window; G-MSA itself is "
        f"{100 * glam['g_msa_gmacs'] / glam['gmacs']:.1f} % of the multiply-adds. No verdict: how much is little is "
        "the reader's choice, and the share grows with the image (see the cost notebook)."
    )
    return measured, INCONCLUSIVE


def claims_html(judged: pd.DataFrame) -> str:
    """Return judged claims as an HTML table."""
    with pd.option_context("display.max_colwidth", None):
        return judged.to_html(index=False, border=0, classes="claims", justify="left")


def comparisons(study: Study, runs: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> str:
    """Return a Markdown list: for each (variant, other) the difference of the study's metric, paired by seed, its 95 %
    interval, and the verdict on "variant is better than other".
    """
    lines = []
    for variant, other in pairs:
        gain = paired_difference(runs, variant, other, study.metric)
        found = f"{_words(gain, study.metric)}: {verdict(gain)} as better" if gain.n else "no seed that both have run"
        lines.append(f"- {study.variants[variant].label} against {study.variants[other].label}: {found}")
    return "\n".join(lines)

"""Verdicts, by rule, on the claims that studies/claims.csv declares.

python -m glamlib.report.claims RESULTS STUDY ... (writes the studies' tables, too)
"""

import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from glamlib import studies
from glamlib.errors import one_line_errors
from glamlib.files import write_whole
from glamlib.report import statistics
from glamlib.report.statistics import CONTRADICTED, EQUIVALENT, INCONCLUSIVE, LEVEL, SUPPORTED, Comparison
from glamlib.report.tables import METRIC_NAMES, read_table, strongest, write_tables
from glamlib.runs.records import comparable

CLAIMS = pd.read_csv(Path(studies.__file__).with_name("claims.csv"), keep_default_na=False, comment="#")
NOT_TESTED, NOT_TRAINED, SATURATED, UNFINISHED = "not tested", "not trained enough", "saturated", "unfinished"
_NAMES = METRIC_NAMES | {"escaped": "runs past guessing"}
_NAMES |= {"steps_to_criterion": "steps to criterion", "gmacs": "G multiply-adds"}
_CEILING = 0.98  # of a share of right answers: what differs above it are single shapes and pixels
_SHARES = ("right_given_found", "side_accuracy")
# The level of each look at a study whose seeds were added after looking, for 5 % in all (Pocock, Biometrika 64, 1977)
_LOOKS = {1: LEVEL, 2: 0.0294, 3: 0.0221}
_CLIP = 20  # frames: neighbours show nearly the same


def judged(results: Path) -> pd.DataFrame:
    """Return one row a claim, from the tables and records below ``results``, those of its `strongest` profile.

    Columns: those of claims.csv; profile, seeds (that it has for both: others do not count); n, difference, low,
    high, detectable, counts of `Comparison`, p and p_equivalent of it, adjusted for looks and family (`holm`); beside,
    the mean of what is compared with; images_low and images_high, the 95 % interval over test subjects or clips;
    verdict, and the reason of one that is not by a test.
    """
    return pd.concat([_family(claims, results) for _, claims in CLAIMS.groupby("family", sort=False)])


def _family(claims: pd.DataFrame, results: Path) -> pd.DataFrame:
    rows = [_asked(claim, results) for claim in claims.to_dict("records")]
    size = sum(row["verdict"] not in (EQUIVALENT, CONTRADICTED) for row in rows)  # all but what was counted
    found = [_compared(row, max(size, 1)) for row in rows]
    looks = np.array([np.nan if row["verdict"] else LEVEL / _LOOKS[row["looks"]] for row in rows])  # NaN: no test
    p, equal = (statistics.holm(looks * [getattr(one, name) for one in found], size) for name in ("p", "p_equivalent"))
    for row, one, own_p, own_equal in zip(rows, found, p, equal, strict=True):
        one = one._replace(p=own_p, p_equivalent=own_equal)
        low, high = _over_cases(row) if row["metric"] in ("dice", "miou") and one.n else (np.nan, np.nan)
        row |= {"images_low": low, "images_high": high, "verdict": row["verdict"] or one.verdict} | one._asdict()
        row["beside"] = np.nan if row["values"] is None else row["values"][1].mean()
        del row["values"], row["cap"], row["folder"], row["grid"], row["looks"]
    return pd.DataFrame(rows)


def _asked(claim: dict[str, object], results: Path) -> dict[str, object]:
    """Return a claim's row with the values of both variants by seed and, where no test is needed, its verdict."""
    row = claim | {"profile": "", "seeds": 0, "verdict": NOT_TESTED, "reason": "", "values": None, "cap": np.inf}
    row |= {"grid": 0, "looks": 1, "folder": strongest(results, claim["study"], claim["profiles"].split())}
    runs = read_table(row["folder"], claim["study"])
    if runs is None:
        return row | {"reason": f"study {claim['study']} has not run" if claim["study"] else "there is no study of it"}
    row["profile"] = profile = runs["profile"].iloc[0]
    if profile not in claim["profiles"].split():
        return row | {"reason": f"not at profile {profile}, but {claim['profiles'].replace(' ', ' and ')}"}
    study = studies.STUDIES[claim["study"]]
    size, pair = study.profiles[profile], (claim["variant"], claim["comparison"])
    row |= {"seeds": min(size.more_seeds.get(name, size.seeds) for name in pair), "looks": study.looks}
    runs = runs[(runs["seed"] - size.first_seed).between(0, row["seeds"] - 1)]
    values = [runs[runs["variant"] == name].set_index("seed") for name in pair]
    if claim["metric"] not in runs:
        return row | {"reason": f"runs of study {study.name} have no {claim['metric']}"}
    trained, values = ([table.get(name) for table in values] for name in (study.metric, claim["metric"]))
    if claim["outcome"] == "time":
        row |= {"cap": runs["steps"].max(), "grid": size.parameters["validate_every"]}
        values = [steps.fillna(row["cap"]) for steps in values]
    row["values"] = values
    if claim["metric"] == "gmacs" and all(map(len, values)):
        within = abs(values[0].iloc[0] - values[1].iloc[0]) <= claim["margin"]
        return row | {"verdict": EQUIVALENT if within else CONTRADICTED, "reason": "counted, the same for all seeds"}
    if (seeds := min(map(len, values))) < row["seeds"]:
        return row | {"verdict": UNFINISHED, "reason": f"{seeds} of {row['seeds']} seeds have run"}
    prior = runs["prior"].iloc[0] if "prior" in runs else -np.inf  # of the study's metric, whatever the claim's is
    if prior > 0 and any(statistics.mean_interval(scores).low <= prior for scores in trained):
        return row | {"verdict": NOT_TRAINED, "reason": f"the image-blind prior has {prior:.3f}"}
    if claim["metric"] in _SHARES and min(scores.min() for scores in values) > _CEILING:
        return row | {"verdict": SATURATED, "reason": "both are at the ceiling"}
    if claim["outcome"] == "time" and all((steps >= row["cap"]).mean() > 0.5 for steps in values):
        return row | {"verdict": NOT_TRAINED, "reason": "most runs of both end before they find the rule"}
    return row | {"verdict": ""}


def _compared(row: dict[str, object], family: int) -> Comparison:
    options = {name: row[name] for name in ("margin", "direction", "cap", "grid")}
    options |= {"level": _LOOKS[row["looks"]] / family, "counted": row["metric"] == "right_given_found"}
    options |= {"paired": row["test"] == "paired", "success": row["outcome"] == "success"}
    return statistics.compare(*(row["values"] or ({}, {})), **options)


def _over_cases(row: dict[str, object]) -> tuple[float, float]:
    """Return the 95 % interval of the difference over test subjects, or over clips of the test images' sequences."""
    pair, found = (row["variant"], row["comparison"]), comparable(row["folder"], studies.STUDIES[row["study"]])[0]
    cases = [
        {"variant": record["parameters"]["variant"], **case}
        for record in found
        if record["parameters"]["variant"] in pair and record["parameters"]["seed"] in row["values"][0]
        for case in record["metrics"]["cases"]
    ]
    if {case["variant"] for case in cases} != set(pair):
        return np.nan, np.nan
    values, statistic = (_subjects if row["metric"] == "dice" else _clips)(pd.DataFrame(cases), pair)
    return tuple(stats.bootstrap((values,), statistic, method="percentile", rng=0, batch=500).confidence_interval)


def _subjects(cases: pd.DataFrame, pair: tuple[str, str]) -> tuple[pd.Series, Callable]:
    """Return a gain for each subject, the mean of its seeds and structures, and what is formed of them."""
    cases = cases.explode("dice").astype({"dice": float})
    means = cases.pivot_table(index="name", columns="variant", values="dice")
    return (means[pair[0]] - means[pair[1]]).dropna(), np.mean


def _clips(cases: pd.DataFrame, pair: tuple[str, str]) -> tuple[np.ndarray, Callable]:
    """Return the numbers of clips, each of `_CLIP` frames of names SEQUENCE_FRAME, and the gain in mIoU of chosen ones,
    whose pixels, and those of all seeds, are summed.
    """
    names, kinds = pd.Series(sorted(set(cases["name"]))), ["hits", "truth", "guess"]
    sequence = names.str.split("_").str[0]
    clips = dict(zip(names, zip(sequence, names.groupby(sequence).cumcount() // _CLIP, strict=True), strict=True))
    rows = cases.assign(clip=cases["name"].map(clips)).explode(["classes", *kinds])
    sums = rows.pivot_table(kinds, "clip", ["variant", "classes"], aggfunc="sum", fill_value=0)

    def miou(variant: str, chosen: np.ndarray) -> np.ndarray:
        hits, truth, guess = (sums[kind][variant].to_numpy(float)[chosen].sum(axis=-2) for kind in kinds)
        with np.errstate(invalid="ignore"):
            return np.nanmean(hits / (truth + guess - hits), axis=-1)

    return np.arange(len(sums)), lambda chosen, axis: miou(pair[0], chosen) - miou(pair[1], chosen)


def read_claims(results: Path, *names: str) -> pd.DataFrame:
    """Return ``tables/claims.csv``, of the studies ``names`` or all, with a column "measured" in words."""
    table = judged(results) if (table := read_table(results, "claims")) is None else table
    table = table[table["study"].isin(names)] if names else table
    table = table.assign(**{name: table[name].astype(object).fillna("") for name in ("counts", "reason")})
    return table.assign(measured=[_words(row) for row in table.itertuples()])


def _words(row: tuple) -> str:
    if not row.n:
        return row.reason
    digits = 0 if row.outcome == "time" else 3
    text = f"{row.counts} runs" if row.counts else f"{row.difference:+.{digits}f} {_NAMES[row.metric]}"
    text += f", against {row.beside:.0f}" if row.outcome == "time" else ""
    if row.metric == "gmacs":  # a count, which has no interval
        return f"{text}; {row.reason}"
    if not np.isnan(row.low):
        how = "Fisher" if row.counts else row.test.replace("welch", "Welch")
        text += f" (95 % interval {row.low:+.{digits}f} to {row.high:+.{digits}f}, {row.n} seeds, {how})"
    else:
        text += " (one seed, so no interval)"
    if not np.isnan(row.images_low):
        text += "; over test subjects" if row.metric == "dice" else "; over test clips"
        text += f" {row.images_low:+.3f} to {row.images_high:+.3f}"
    if row.verdict in (SUPPORTED, CONTRADICTED) and min(abs(row.low), abs(row.high)) < row.margin:
        text += "; the difference may be too small to matter"
    if row.verdict == INCONCLUSIVE and row.detectable > 0:
        possible = row.outcome == "time" or row.detectable <= 1
        text += f"; detectable: {row.detectable:.{digits}f}" if possible else "; no difference would be detectable"
    return f"{text}; {row.reason}" if row.reason else text


def claims_html(claims: pd.DataFrame) -> str:
    """Return claims as an HTML table, and below it in one line, which unfolds, those that are not tested."""
    absent = claims["verdict"] == NOT_TESTED
    with pd.option_context("display.max_colwidth", None):
        shown = claims[~absent].rename(columns={"sentence": "claim", "margin": "least that matters"})
        shown = shown[["claim", "profile", "least that matters", "measured", "verdict"]]
        table = shown.to_html(index=False, border=0, classes="claims", justify="left", float_format="{:g}".format)
    lines = [f"{why}: {' '.join(rows['sentence'])}" for why, rows in claims[absent].groupby("measured", sort=False)]
    count = f"{absent.sum()} claims are not tested here: which, and why"
    return f"{table}<details><summary>{count}</summary>{''.join(f'<p>{line}</p>' for line in lines)}</details>"


def claims_markdown(results: Path, *asked: studies.Study, ids: Collection[str] = ()) -> str:
    """Return the claims on studies, or those of ``ids``, as a Markdown list: verdict, claim and what was measured."""
    rows = read_claims(results, *(study.name for study in asked)).itertuples()
    shown = (row for row in rows if not ids or row.id in ids)
    return "\n".join(f"- Claim: *{row.sentence}* **{row.verdict.capitalize()}**: {row.measured}." for row in shown)


def write_claims(results: Path, *names: str) -> None:
    """Write the tables of the studies ``names``, and ``tables/claims.csv`` from all that is below ``results``."""
    for name in names:
        write_tables(results, studies.find_study(name))
    write_whole(results / "tables" / "claims.csv", judged(results).to_csv(index=False))


if __name__ == "__main__":
    with one_line_errors():
        write_claims(Path(sys.argv[1]), *sys.argv[2:])

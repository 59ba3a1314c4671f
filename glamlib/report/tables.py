"""The tables of a study: one row a run, one row a variant with intervals and cost, and both as a reader meets them."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.report.statistics import bimodal, mean_interval, score_interval
from glamlib.runs.records import comparable
from glamlib.studies import FETCHED, PROFILES
from glamlib.studies.study import Study
from glamlib.training.datasets import GENERATED

METRIC_NAMES = {"miou": "mIoU", "dice": "Dice", "right_given_found": "right class, of those found"}
METRIC_NAMES |= {"side_accuracy": "correct side, where the structure is correct"}
COLUMNS = pd.read_csv(Path(__file__).with_name("summary_columns.csv"), comment="#")
_CUE_SCORES = "cue_accuracy found right_given_found cue_chance cue_constant escaped steps_to_criterion"
_VOLUME_SCORES = "hd95_mm dice_synapse_rule hd95_synapse_rule_mm undefined_dice undefined_hd95 side_accuracy"


def run_table(results: Path, study: Study) -> pd.DataFrame:
    """Return one row a run, in the study's order; numbers are numbers, and costs carry their size.

    Columns: study, variant, seed, profile, steps, label; every metric that is one number, such as miou, iou_CLASS; of
    volumes dice_CLASS, undefined_dice, undefined_hd95, of sided brains side_accuracy; gmacs, g_msa_gmacs, depth
    (of volumes), height, width, parameters, train_seconds, peak_memory_mib, device, commit, dirty, torch.
    """
    rows = []
    for record in comparable(results, study)[0]:
        metrics, cost, classes = record["metrics"], record["cost"], record["classes"]
        row = {name: record["parameters"][name] for name in ("study", "variant", "seed", "profile", "steps")}
        row["label"] = study.variants[row["variant"]].label
        row |= {name: value for name, value in metrics.items() if not isinstance(value, list | dict)}
        row |= {f"iou_{name}": iou for name, iou in zip(classes, metrics["iou"], strict=True)}
        if "dice" in metrics:
            row |= {f"undefined_{name}": metrics["undefined"][name] for name in ("dice", "hd95")}
            row |= {f"dice_{name}": dice for name, dice in zip(classes[1:], metrics["dice_by_class"], strict=True)}
            if "left hippocampus" in classes:
                row["side_accuracy"] = side_accuracy(metrics["confusion"], classes)
        row |= {"gmacs": cost["gmacs"]["total"], "g_msa_gmacs": cost["gmacs"]["g_msa"]}
        row |= {name: cost[name] for name in ("depth", "height", "width") if cost.get(name)}
        row["parameters"] = cost["parameters"]["total"]
        row |= {name: record[name] for name in ("train_seconds", "peak_memory_mib", "device", "commit", "dirty")}
        rows.append(row | {"torch": record["versions"]["torch"]})
    return pd.DataFrame(rows).fillna(np.nan)  # JSON has null for NaN


def side_accuracy(confusion: list[list[int]], classes: list[str]) -> float:
    """Return the share of voxels of a sided structure that have the right side, where the structure itself is right.

    It is the mean over the pairs "left NAME" and "right NAME" of ``classes``; 0.5 is chance, NaN without pairs.
    """
    counts, shares = pd.DataFrame(confusion, classes, classes), []
    pairs = ([name, name.replace("left", "right", 1)] for name in classes if name.startswith("left "))
    for pair in (pair for pair in pairs if pair[1] in classes):
        own = counts.loc[pair, pair].to_numpy()
        shares.append(own.trace() / own.sum() if own.any() else np.nan)
    return float(pd.Series(shares, dtype=float).mean())


def summary_table(runs: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return one row a variant: n, mean and 95 % interval of the study's metric (METRIC, METRIC_low, METRIC_high), the
    difference to the baseline paired by seed (gain, gain_low, gain_high), other scores, and cost.
    """
    metric, baseline, summary = study.metric, study.baseline, []
    by_seed = runs.pivot(index="seed", columns="variant", values=study.metric)
    scores = _VOLUME_SCORES if metric == "dice" else _CUE_SCORES  # cue volumes have no mm
    means = [name for name in ("prior", *scores.split()) if name in runs and name != metric]
    first = [name for name in ("gmacs", "g_msa_gmacs", "depth", "height", "width", "parameters") if name in runs]
    for variant, rows in runs.groupby("variant", sort=False):
        score = score_interval(rows[metric].dropna())
        row = {"study": study.name, "variant": variant, "label": rows["label"].iloc[0], "n": score.n}
        row |= {metric: score.mean, f"{metric}_low": score.low, f"{metric}_high": score.high}
        if variant != baseline:
            pair = by_seed.reindex(columns=[variant, baseline]).dropna()
            _, *gain = mean_interval(pair[variant] - pair[baseline])
            row |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
            if bimodal(pair[variant]) or bimodal(pair[baseline]):
                row |= {"gain_low": np.nan, "gain_high": np.nan}
        row |= rows[means].mean(skipna=False).to_dict() | {name: rows[name].iloc[0] for name in first}
        summary.append(row | {"train_seconds": rows["train_seconds"].mean(), "profile": rows["profile"].iloc[0]})
    return pd.DataFrame(summary)


def write_tables(results: Path, study: Study) -> None:
    """Write ``tables/STUDY.csv`` and ``tables/STUDY_summary.csv``; InputError where the study has no run.

    Runs that were made with other values, data or code are named in ``tables/STUDY_others.csv``, and left out.
    """
    runs = run_table(results, study)
    if runs.empty:
        raise InputError(f"{results / 'runs' / study.name}: no records of study {study.name}")
    _, others = comparable(results, study)
    tables = {"_summary": summary_table(runs, study), "": runs, "_others": pd.DataFrame({"run": others})}
    for suffix, table in tables.items():
        path = results / "tables" / f"{study.name}{suffix}.csv"
        if table.empty:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, table.to_csv(index=False))


def read_table(results: Path, name: str) -> pd.DataFrame | None:
    """Return ``tables/NAME.csv``, or None where there is none."""
    path = results / "tables" / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else None


def strongest(results: Path, study: str, profiles: Collection[str] = PROFILES[1:]) -> Path:
    """Return the folder of the last of ``profiles`` below ``results`` that has the study's table, else ``results``."""
    folders = [results / profile for profile in reversed(PROFILES) if profile in profiles]
    return next((folder for folder in folders if (folder / "tables" / f"{study}.csv").exists()), results)


def study_markdown(results: Path, study: Study, profile: str) -> str:
    """Return a study's question, provenance and summary in Markdown, or why it has no result."""
    summary = read_table(results, f"{study.name}_summary")
    if summary is None:
        return f"**{study.question}** {why_not_run(study, profile)}"
    return f"**{study.question}** {provenance_sentence(results, study)}\n\n{summary_markdown(summary, study)}"


def summary_markdown(summary: pd.DataFrame, study: Study) -> str:
    """Return a study's summary as a reader meets it: numbers formatted, in a Markdown table."""
    metric = study.metric
    names = {"score": metric, "low": f"{metric}_low", "high": f"{metric}_high"}
    rows = summary.assign(mega=summary["gmacs"] * 1e3, **{name: summary[column] for name, column in names.items()})
    if "escaped" in rows:
        rows["past"] = (rows["escaped"] * rows["n"]).round().astype(int)
    shown = {
        title.replace("METRIC", METRIC_NAMES[metric]): [form.format(**row) for row in rows.to_dict("records")]
        for title, needs, form, _ in COLUMNS.itertuples(index=False)
        if needs in rows
    }
    words = {"^nan to nan$": "one seed", r"^\+?nan \(.*": "-", r" \(\+?nan to \+?nan\)": "", "^nan$": "undefined"}
    table = pd.DataFrame(shown).replace(words, regex=True)
    mixed = (summary["n"] > 1) & summary[metric].notna() & summary[f"{metric}_low"].isna()  # a mean, and no interval
    table.loc[mixed, "95 % interval"] = "two groups"
    table.loc[summary[metric].isna(), "95 % interval"] = "-"
    if "against baseline" in table:
        table.loc[summary["variant"] == study.baseline, "against baseline"] = "baseline"
    alignment = ("left", *["right"] * (len(table.columns) - 1))
    return table.to_markdown(index=False, disable_numparse=True, colalign=alignment)


def why_not_run(study: Study, profile: str) -> str:
    """Return why a study has no result here: no such size, data that are not there, or not run yet."""
    if profile not in study.profiles:
        return f"Study {study.name} is not part of profile {profile}, only of {', '.join(study.profiles)}."
    if study.dataset in GENERATED:
        return f"Study {study.name} has not run yet: make reproduce."
    fetch = f", or fetch them with make {study.dataset}" if study.dataset in FETCHED else ""
    return f"Study {study.name} has not run: the {study.dataset} data were not there (set GLAM_DATA{fetch})."


def provenance_sentence(results: Path, study: Study) -> str:
    """Return how and where a study's runs were made, and which of them its table leaves out."""
    runs, others = read_table(results, study.name), read_table(results, f"{study.name}_others")
    apart = "" if others is None else f" Left out, because they were made otherwise: {', '.join(others['run'])}."
    seeds = runs.groupby("variant")["seed"].nunique()
    number = " to ".join(map(str, sorted({seeds.min(), seeds.max()})))
    commits = ", ".join(sorted({str(commit)[:10] for commit in runs["commit"].fillna("unknown")}))
    changed = " with uncommitted changes" if runs["dirty"].any() else ""
    devices = runs["device"].str.replace(r" \([^)]* steps\)", "", regex=True).str.split(", then ").explode()
    plural = ["s" * (str(count) != "1") for count in (len(runs), len(seeds), number)]
    return (
        f"{len(runs)} run{plural[0]} ({len(seeds)} variant{plural[1]}, {number} seed{plural[2]}), profile "
        f"{runs['profile'].iloc[0]}, commit {commits}{changed}, on {'; '.join(sorted(set(devices)))}, torch "
        f"{', '.join(sorted(set(runs['torch'])))}; at most {runs['peak_memory_mib'].max():.0f} MiB per run.{apart}"
    )

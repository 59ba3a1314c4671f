"""The tables of a study: one tidy row a run, and one row a variant with intervals and cost.

python -m glamlib.report.tables RESULTS STUDY


MERGED: The study's tables as a reader meets them: HTML for the report and notebooks, Markdown for the README.
"""

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.report.claims import METRIC_NAMES, Claim
from glamlib.report.statistics import mean_interval, paired_difference
from glamlib.runs.records import read_records
from glamlib.studies import find_study

_VOLUME_SCORES = ["dice", "hd95_mm", "dice_synapse_rule", "hd95_synapse_rule_mm", "undefined_dice", "undefined_hd95"]


def run_table(results: Path, study_name: str) -> pd.DataFrame:
    """Return one row a run of the study's variants, in the study's order; numbers are numbers, costs carry their size.

    Columns: study, variant, label, seed, profile, miou, pixel_accuracy, mean_accuracy, cue_accuracy (cue scenes and
    volumes), iou_CLASS; of volumes dice, hd95_mm, both by the Synapse papers' rule, undefined_dice, undefined_hd95,
    dice_CLASS; gmacs, g_msa_gmacs, depth (of volumes), height, width, parameters, train_seconds, peak_memory_mib,
    device, commit, dirty, torch; of runs on a GPU also images_per_second, tflops, device_tflops and share
    (`glamlib.study.throughput`).
    """
    study = find_study(study_name)
    rows = []
    for record in read_records(results, study_name):
        run, metrics, cost = record["parameters"], record["metrics"], record["cost"]
        if run["variant"] not in study.variants:
            continue  # of an earlier form of the study
        row = {name: run[name] for name in ("study", "variant", "seed", "profile")}
        row["label"] = study.variants[run["variant"]].label
        row |= {name: metrics[name] for name in ("miou", "pixel_accuracy", "mean_accuracy")}
        if "cue_accuracy" in metrics:
            row["cue_accuracy"], row["cue_chance"] = metrics["cue_accuracy"], metrics["cue_chance"]
        row |= {f"iou_{name}": iou for name, iou in zip(record["classes"], metrics["iou"], strict=True)}
        if "dice" in metrics:
            row |= _volume_columns(record)
        row |= {"gmacs": cost["gmacs"]["total"], "g_msa_gmacs": cost["gmacs"]["g_msa"]}
        if cost.get("depth"):
            row["depth"] = cost["depth"]
        row |= {"height": cost["height"], "width": cost["width"], "parameters": cost["parameters"]["total"]}
        row |= {name: record[name] for name in ("train_seconds", "peak_memory_mib", "device", "commit", "dirty")}
        row |= record.get("speed", {})
        row["torch"] = record["versions"]["torch"]
        rows.append({name: np.nan if value is None else value for name, value in row.items()})  # JSON has no NaN
    order = list(study.variants)
    return pd.DataFrame(sorted(rows, key=lambda row: (order.index(row["variant"]), row["seed"])))


def _volume_columns(record: dict[str, object]) -> dict[str, float]:
    metrics = record["metrics"]
    undefined = {f"undefined_{name}": count for name, count in metrics["undefined"].items()}
    return {name: (metrics | undefined)[name] for name in _VOLUME_SCORES} | {
        f"dice_{name}": dice for name, dice in zip(record["classes"][1:], metrics["dice_by_class"], strict=True)
    }


def summary_table(runs: pd.DataFrame, study_name: str) -> pd.DataFrame:
    """Return one row a variant: n, mean and 95 % interval of the study's metric (columns METRIC, METRIC_low,
    METRIC_high), paired difference to the baseline, the other scores of volumes where the metric is Dice, and cost.
    """
    study = find_study(study_name)
    metric = study.metric
    by_seed = {variant: dict(zip(rows["seed"], rows[metric], strict=True)) for variant, rows in runs.groupby("variant")}
    summary = []
    for variant, rows in runs.groupby("variant", sort=False):
        score = mean_interval(rows[metric])
        row = {"study": study_name, "variant": variant, "label": rows["label"].iloc[0], "n": score.n}
        # Student's interval does not know that the score lies in 0..1: cut it there
        row |= {
            metric: score.mean,
            f"{metric}_low": np.maximum(score.low, 0.0),
            f"{metric}_high": np.minimum(score.high, 1.0),
        }
        if variant != study.baseline and study.baseline in by_seed:
            difference = paired_difference(by_seed[variant], by_seed[study.baseline])
            row |= {"gain": difference.mean, "gain_low": difference.low, "gain_high": difference.high}
        if "cue_accuracy" in rows:
            row |= {"cue_accuracy": rows["cue_accuracy"].mean(), "cue_chance": rows["cue_chance"].iloc[0]}
        if metric == "dice":  # cue volumes have no millimetres, and always a class that is nowhere
            row |= {name: rows[name].mean() for name in _VOLUME_SCORES[1:]}
        sizes = [name for name in ("depth", "height", "width") if name in rows]
        row |= {name: rows[name].iloc[0] for name in ("gmacs", "g_msa_gmacs", *sizes, "parameters")}
        row |= {"train_seconds": rows["train_seconds"].mean(), "profile": rows["profile"].iloc[0]}
        summary.append(row)
    return pd.DataFrame(summary)


def write_tables(results: Path, study_name: str) -> None:
    """Write ``tables/STUDY.csv`` and ``tables/STUDY_summary.csv``; InputError where the study has no run."""
    runs = run_table(results, study_name)
    if runs.empty:
        raise InputError(f"{results / 'runs' / study_name}: no records of study {study_name}")
    write_whole(results / "tables" / f"{study_name}_summary.csv", summary_table(runs, study_name).to_csv(index=False))
    write_whole(results / "tables" / f"{study_name}.csv", runs.to_csv(index=False))


def read_table(results: Path, name: str) -> pd.DataFrame | None:
    """Return ``tables/NAME.csv``, or None where there is none."""
    path = results / "tables" / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else None


if __name__ == "__main__":
    try:
        write_tables(Path(sys.argv[1]), sys.argv[2])
    except InputError as error:
        sys.exit(f"error: {error}")


NUMBER = ' class="num"'  # the report aligns these cells to the right


def metric_of(summary: pd.DataFrame) -> str:
    """Return the metric that a summary table is about: "dice" or "miou"."""
    return "dice" if "dice" in summary else "miou"


def _against_baseline(row: pd.Series) -> str:
    if pd.isna(row.get("gain")):
        return "baseline"
    interval = f" ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})" if pd.notna(row["gain_low"]) else ""
    return f"{row['gain']:+.3f}{interval}"


def summary_cells(summary: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return a study's summary as a reader meets it: the header, and formatted rows, the baseline's first."""
    metric = metric_of(summary)

    def interval(row: pd.Series) -> str:
        return f"{row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}" if row["n"] > 1 else "one seed"

    columns: list[tuple[str, str, Callable[[pd.Series], str]]] = [
        ("variant", "label", lambda row: row["label"]),
        (METRIC_NAMES[metric], metric, lambda row: f"{row[metric]:.3f}"),
        ("95 % interval", metric, interval),
        ("against baseline", metric, _against_baseline),
        ("right class", "cue_accuracy", lambda row: f"{row['cue_accuracy']:.3f}"),
        ("HD95 (mm)", "hd95_mm", lambda row: "undefined" if pd.isna(row["hd95_mm"]) else f"{row['hd95_mm']:.2f}"),
        ("Dice, other rule", "dice_synapse_rule", lambda row: f"{row['dice_synapse_rule']:.3f}"),
        ("undefined HD95", "undefined_hd95", lambda row: f"{row['undefined_hd95']:.0f}"),
        ("M multiply-adds", "gmacs", lambda row: f"{row['gmacs'] * 1e3:.1f}"),
        ("parameters", "parameters", lambda row: f"{row['parameters']:,}"),
    ]
    told = [(title, cell) for title, needs, cell in columns if needs in summary]
    return [title for title, _ in told], [[cell(row) for _, cell in told] for _, row in summary.iterrows()]


def summary_html(summary: pd.DataFrame) -> str:
    """Return a study's summary as an HTML table."""
    header, rows = summary_cells(summary)

    def cells(tag: str, row: list[str]) -> str:
        return "".join(f"<{tag}{NUMBER if i else ''}>{escape(text)}</{tag}>" for i, text in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"


def summary_markdown(summary: pd.DataFrame) -> str:
    """Return a study's summary as a Markdown table."""
    header, rows = summary_cells(summary)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claims_html(claims: list[Claim]) -> str:
    """Return the claims as an HTML table: claim, what was measured, verdict."""
    rows = "".join(
        f"<tr><td>{escape(item.claim)}</td><td>{escape(item.measured)}</td>"
        f'<td class="verdict">{escape(item.verdict)}</td></tr>'
        for item in claims
    )
    return (
        '<table class="claims"><thead><tr><th>claim</th><th>measured</th><th>verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def why_not_run(name: str, profile: str) -> str:
    """Return, in Markdown, why a study has no result here: no such size, data that are not there, or not run yet."""
    study = find_study(name)
    if profile not in study.profiles:
        return f"**Not run at profile `{profile}`**: study `{name}` has the profiles {', '.join(study.profiles)}."
    if not study.needs_files:
        return f"**Not run yet**: study `{name}` waits for `make reproduce`."
    fetch = ", or fetch them with `make camvid`" if study.dataset == "camvid" else ""
    return f"**Not run: the {study.dataset} data were not there.** Set `GLAM_DATA`{fetch}."


def provenance_sentence(runs: pd.DataFrame) -> str:
    """Return how and where a study's runs were made: profile, seeds, commit, device, torch, memory.

    Not how long they took: runs share a machine, and speed is a benchmark's to tell.
    """
    commits = ", ".join(sorted({str(commit)[:10] for commit in runs["commit"]}))
    changed = " with uncommitted changes" if runs["dirty"].any() else ""
    return (
        f"{len(runs)} runs ({runs['variant'].nunique()} variants, {runs['seed'].nunique()} seeds), profile "
        f"{runs['profile'].iloc[0]}, commit {commits}{changed}, on {', '.join(sorted(set(runs['device'])))}, "
        f"torch {', '.join(sorted(set(runs['torch'])))}; at most {runs['peak_memory_mib'].max():.0f} MiB a run."
    )

"""The tables of a study: one tidy row a run, and one row a variant with intervals and cost.

python -m glamlib.study.tables RESULTS STUDY
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.errors import InputError

from .files import write_whole
from .records import read_records
from .statistics import mean_interval, paired_difference
from .studies import find_study

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

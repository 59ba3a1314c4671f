"""Figures of the speed benchmark: time, memory, where a linear exchange pays and what it gives up."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from glamlib.bench.speed_table import EXCHANGES, configuration_label, crossing, headline
from glamlib.report.figures import t_interval
from glamlib.report.statistics import paired_difference
from glamlib.report.tables import read_table

# Studies that train these exchanges on cue scenes, each at a size of its own.
ACCURACY_STUDIES = ("mixers_48", "mixers", "mixers_96")
_MIDDLE_AND_ENDS = {"estimator": "median", "errorbar": ("pi", 100), "err_style": "bars", "err_kws": {"capsize": 3}}


def _with_ends(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return three rows for each: ``value`` is the column, its low and its high end (`_MIDDLE_AND_ENDS` draws them)."""
    ends = [rows.assign(value=rows[f"{column}{end}"]) for end in ("", "_low", "_high")]
    return pd.concat(ends, ignore_index=True)


def _by_size(rows: pd.DataFrame, column: str, ylabel: str, **options: object) -> sns.FacetGrid:
    """Draw a column against image size, a panel a pass, one line a ``label``; ``options`` are those of relplot."""
    look = {"hue": "label", "style": "label"} | options
    layout = {"kind": "line", "col": "pass", "height": 4, "aspect": 1.1, "markers": True, "markeredgecolor": "black"}
    grid = sns.relplot(rows, x="size", y=column, **layout, **look)
    sizes = sorted(rows["size"].unique())
    grid.set(xscale="log", xticks=sizes, xlabel="side of the image (pixels)", ylabel=ylabel)
    for axes in grid.axes.flat:
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
    grid.set_titles("{col_name}")
    if grid.legend.get_title().get_text() == "label":
        grid.legend.set_title(None)
    return grid


def column_by_size(table: pd.DataFrame, column: str, ylabel: str) -> Figure:
    """Draw a column ("seconds" or "peak_mib") of the encoder's fused passes against image size, on log axes."""
    rows = headline(table, networks=("tiny", "base"))
    rows = rows.assign(label=rows.apply(configuration_label, axis=1))
    return _by_size(rows, column, ylabel).set(yscale="log").figure


def ratio_by_size(table: pd.DataFrame) -> Figure:
    """Time over Swin-T's as measured and as multiply-adds predict it, against image size; 10 tokens, each exchange."""
    rows = headline(table).query("tokens == 10")
    measured = _with_ends(rows, "ratio").assign(time="measured")
    predicted = rows.assign(value=rows["macs_ratio"], time="predicted by multiply-adds")
    rows = pd.concat([measured, predicted], ignore_index=True)
    rows["exchange"] = rows["mixer"].map(EXCHANGES)
    look = {"hue": "exchange", "style": "time"} | _MIDDLE_AND_ENDS
    grid = _by_size(rows, "value", "time over Swin-T's", **look)
    grid.refline(y=1)
    return grid.figure


def _exchange_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the linear exchanges with 10 tokens, by size."""
    rows = headline(table).query("tokens == 10 and mixer != 'gmsa'").dropna(subset="exchange_ratio")
    return rows.assign(label=rows["mixer"].map(EXCHANGES)).sort_values("size")


def payoff_by_size(table: pd.DataFrame) -> Figure:
    """Time of the linear exchanges over G-MSA's against image size; a line where it falls below 1 and stays there."""
    rows = _exchange_rows(table)
    names = [name for name in EXCHANGES.values() if name in set(rows["label"])]
    look = {"hue_order": names, "style_order": names, "palette": "colorblind"} | _MIDDLE_AND_ENDS
    grid = _by_size(_with_ends(rows, "exchange_ratio"), "value", "time over G-MSA's (below 1: pays)", **look)
    grid.refline(y=1)
    for direction, axes in grid.axes_dict.items():
        for i, name in enumerate(names):
            lines = rows[(rows["pass"] == direction) & (rows["label"] == name)]
            start = crossing(lines["size"], lines["exchange_ratio"]) if len(lines) else None
            if start is not None and start > lines["size"].iloc[0]:
                axes.axvline(start, color=f"C{i}", linestyle=":")
                axes.text(0.03, 0.03 + 0.08 * i, f"{name}: from {start:.0f} pixels", transform=axes.transAxes)
    return grid.figure


def payoff(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each linear exchange and pass, from which image size on it is faster than G-MSA, and by how much.

    Faster by the median of the rounds; sizes from there on at which some round was slower are listed.
    """
    found = []
    for (name, direction), lines in _exchange_rows(table).groupby(["label", "pass"], sort=False):
        start, last = crossing(lines["size"], lines["exchange_ratio"]), lines.iloc[-1]
        slower = lines[(lines["size"] >= (start or np.inf)) & (lines["exchange_ratio_high"] > 1)]["size"]
        row = {"exchange": name, "pass": direction, "faster from (px)": "never" if start is None else round(start)}
        row["time over G-MSA's"] = f"{last['exchange_ratio']:.2f} at {last['size']} px"
        found.append(row | {"but slower in some round at (px)": ", ".join(map(str, slower))})
    return pd.DataFrame(found)


def exchange_runs(results: Path) -> pd.DataFrame:
    """Return the runs of `EXCHANGES` on cue scenes of all sizes that have run; ``height`` is the side of the scenes."""
    tables = [table for name in ACCURACY_STUDIES if (table := read_table(results, name)) is not None]
    if not tables:
        return pd.DataFrame()
    runs = pd.concat(tables, ignore_index=True)
    return runs[runs["variant"].isin(EXCHANGES)]


def accuracy_by_scene(runs: pd.DataFrame) -> Figure:
    """mIoU of each exchange against the side of the cue scenes it was trained on (`exchange_runs`)."""
    figure, axes = plt.subplots(figsize=(7, 4))
    rows = runs.assign(label=runs["variant"].map(EXCHANGES))
    look = {"hue": "label", "hue_order": EXCHANGES.values(), "markers": list("osD"), "linestyles": ["-", "--", ":"]}
    sns.pointplot(rows, x="height", y="miou", **look, dodge=0.2, errorbar=t_interval, capsize=0.05, ax=axes)
    axes.set(xlabel="side of the scenes (pixels)", ylabel="mIoU on test scenes")
    axes.set_title(f"mean over {runs['seed'].nunique()} seeds, 95 % interval (bar)", fontsize=9, loc="right")
    axes.legend(title=None)
    return figure


def accuracy_given_up(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mIoU of each linear exchange minus G-MSA's, paired by seed, at each size of scenes."""
    found = []
    for side, rows in runs.groupby("height") if len(runs) else ():
        for mixer, name in list(EXCHANGES.items())[1:]:
            gain = paired_difference(rows, mixer, "gmsa", "miou")
            found.append({"exchange": name, "side (px)": side} | gain._asdict())
    return pd.DataFrame(found)

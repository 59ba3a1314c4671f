"""Figures of the speed benchmark."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

_PASSES = ("forward", "training")
_LOOK = {
    "Swin-T": ("o", "-"),
    "1 token": ("s", "--"),
    "5 tokens": ("D", "-."),
    "10 tokens": ("^", "-"),
    "10 tokens, pooled keys": ("v", ":"),
}


def contender_label(row: pd.Series) -> str:
    """Return what a row of the table is called in figures and tables."""
    if not row["tokens"]:
        return "Swin-T"
    label = f"{row['tokens']} token{'s' * (row['tokens'] > 1)}"
    if row["mixer"] == "pooled":
        label += ", pooled keys"
    return label if row["behaviour"] == "paper" else f"{label}, no MLP on them"


def _by_size(table: pd.DataFrame, column: str, ylabel: str, line_at: float | None = None) -> Figure:
    """Draw a column of the encoder's fused contenders against image size, forward and in training."""
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    fused = table[(table["part"] == "encoder") & (table["way"] == "fused") & (table["behaviour"] == "paper")]
    colours = dict(zip(_LOOK, sns.color_palette("colorblind", len(_LOOK)), strict=True))
    for axes, direction in zip(all_axes, _PASSES, strict=True):
        rows = fused[fused["pass"] == direction]
        for label, lines in rows.groupby(rows.apply(contender_label, axis=1)):
            marker, style = _LOOK[label]
            axes.plot(lines["size"], lines[column], marker=marker, linestyle=style, color=colours[label], label=label)
        if line_at is not None:
            axes.axhline(line_at, color="0.3", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", title=direction)
        axes.xaxis.set_major_locator(FixedLocator(sorted(table["size"].unique())))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    all_axes[0].set_ylabel(ylabel)
    all_axes[0].legend(fontsize=8)
    return figure


def seconds_by_size(table: pd.DataFrame) -> Figure:
    """Seconds of a pass against image size, log axes."""
    return _by_size(table, "seconds", "time of a pass (s)")


def memory_by_size(table: pd.DataFrame) -> Figure:
    """Peak memory against image size, log axes."""
    return _by_size(table, "peak_mib", "peak memory (MiB)")


def ratio_by_size(table: pd.DataFrame) -> Figure:
    """Time over Swin's as measured, and as multiply-adds predict it, against image size; 10 tokens, both mixers."""
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    rows = table[(table["part"] == "encoder") & (table["way"] == "fused") & (table["behaviour"] == "paper")]
    blue, orange = sns.color_palette("colorblind", 2)
    for axes, direction in zip(all_axes, _PASSES, strict=True):
        for mixer, colour, marker in (("gmsa", blue, "^"), ("pooled", orange, "v")):
            lines = rows[(rows["pass"] == direction) & (rows["tokens"] == 10) & (rows["mixer"] == mixer)]
            name = {"gmsa": "G-MSA", "pooled": "pooled keys"}[mixer]
            spread = [lines["ratio"] - lines["ratio_low"], lines["ratio_high"] - lines["ratio"]]
            axes.errorbar(lines["size"], lines["ratio"], spread, color=colour, marker=marker, capsize=3, label=name)
            axes.plot(lines["size"], lines["macs_ratio"], color=colour, linestyle=":", label=f"{name}, multiply-adds")
        axes.axhline(1, color="0.3", linewidth=0.8)
        axes.set(xscale="log", xlabel="side of the image (pixels)", title=direction)
        axes.xaxis.set_major_locator(FixedLocator(sorted(table["size"].unique())))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    all_axes[0].set_ylabel("over Swin-T (1: no dearer)")
    all_axes[0].legend(fontsize=8)
    return figure

"""Figures of the speed benchmark."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from glamlib.bench.speed_table import EXCHANGES, contender_label, crossing, headline
from glamlib.report.tables import read_table

_PASSES = ("forward", "training")
_LOOK = {
    "Swin-T": ("o", "-"),
    "1 token": ("s", "--"),
    "5 tokens": ("D", "-."),
    "10 tokens": ("^", "-"),
    "10 tokens, pooled keys": ("v", ":"),
    "10 tokens, linear attention": ("P", "--"),
    "Swin-B": ("X", "-"),
    "Base, 10 tokens": ("*", "-."),
}
_COLOURS = dict(zip(_LOOK, [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 9, 7, 5)], strict=True))
_OF_EXCHANGE = {"gmsa": "10 tokens", "pooled": "10 tokens, pooled keys", "linear": "10 tokens, linear attention"}


def _style(label: str) -> dict[str, object]:
    """Return colour, marker and line style of a contender: the same in every figure."""
    marker, line = _LOOK[label]
    return {"color": _COLOURS[label], "marker": marker, "linestyle": line}


def _panels(sizes: pd.Series, ylabel: str) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure of a panel a pass, over image size on a log axis with a tick a size."""
    figure, all_axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True)
    for axes, direction in zip(all_axes, _PASSES, strict=True):
        axes.set(xscale="log", xlabel="side of the image (pixels)", title=direction)
        axes.xaxis.set_major_locator(FixedLocator(sorted(sizes.unique())))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    all_axes[0].set_ylabel(ylabel)
    return figure, dict(zip(_PASSES, all_axes, strict=True))


def _one_legend(figure: Figure, panels: dict[str, Axes]) -> None:
    """Put one legend beside the panels, of what is in either, in the order of first appearance."""
    handles = {}
    for axes in panels.values():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)


def _by_size(table: pd.DataFrame, column: str, ylabel: str) -> Figure:
    """Draw a column of the encoder's fused contenders against image size, forward and in training."""
    rows = headline(table, networks=("tiny", "base"))
    figure, panels = _panels(rows["size"], ylabel)
    for direction, axes in panels.items():
        part = rows[rows["pass"] == direction]
        labels = part.apply(contender_label, axis=1)
        for label in _LOOK:
            lines = part[labels == label]
            if len(lines):
                axes.plot(lines["size"], lines[column], label=label, **_style(label))
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _one_legend(figure, panels)
    return figure


def seconds_by_size(table: pd.DataFrame) -> Figure:
    """Seconds of a pass against image size, log axes."""
    return _by_size(table, "seconds", "time of a pass (s)")


def memory_by_size(table: pd.DataFrame) -> Figure:
    """Peak memory against image size, log axes."""
    return _by_size(table, "peak_mib", "peak memory (MiB)")


def _errors(lines: pd.DataFrame, column: str) -> list[pd.Series]:
    return [lines[column] - lines[f"{column}_low"], lines[f"{column}_high"] - lines[column]]


def ratio_by_size(table: pd.DataFrame) -> Figure:
    """Time over Swin-T's as measured, and as multiply-adds predict it, against image size; 10 tokens, each exchange."""
    rows = headline(table)
    figure, panels = _panels(rows["size"], "over Swin-T (1: no dearer)")
    for direction, axes in panels.items():
        for mixer, name in EXCHANGES.items():
            lines = rows[(rows["pass"] == direction) & (rows["tokens"] == 10) & (rows["mixer"] == mixer)]
            look = _style(_OF_EXCHANGE[mixer]) | {"linestyle": "-"}
            axes.errorbar(lines["size"], lines["ratio"], _errors(lines, "ratio"), capsize=3, label=name, **look)
            faint = look | {"linestyle": ":", "markersize": 4, "markerfacecolor": "white"}
            axes.plot(lines["size"], lines["macs_ratio"], label=f"{name}, multiply-adds", **faint)
        axes.axhline(1, color="0.3", linewidth=0.8)
    _one_legend(figure, panels)
    return figure


def _mark(axes: Axes, start: float, name: str, look: dict[str, object], height: float) -> None:
    """Ring the size where a line crosses 1, and write it down at a height of the panel (0 to 1) at its left."""
    ring = {"markersize": 14, "markerfacecolor": "none", "markeredgecolor": look["color"], "markeredgewidth": 2}
    axes.plot(start, 1, linestyle="none", marker="o", label=f"{name}: pays from here on", **ring)
    axes.axvline(start, color=look["color"], linestyle=look["linestyle"], linewidth=1)
    axes.text(0.03, height, f"{name}: from {start:.0f} pixels", fontsize=8, transform=axes.transAxes)


def payoff_by_size(table: pd.DataFrame) -> Figure:
    """Time of the linear exchanges over G-MSA's against image size; a ring where it falls below 1 and stays there."""
    rows = headline(table)
    rows = rows[(rows["tokens"] == 10) & rows["exchange_ratio"].notna()]
    figure, panels = _panels(rows["size"], "time over G-MSA's (below 1: pays)")
    for direction, axes in panels.items():
        for mixer, name in list(EXCHANGES.items())[1:]:
            lines = rows[(rows["pass"] == direction) & (rows["mixer"] == mixer)].sort_values("size")
            if lines.empty:
                continue
            look = _style(_OF_EXCHANGE[mixer])
            spread = _errors(lines, "exchange_ratio")
            axes.errorbar(lines["size"], lines["exchange_ratio"], spread, capsize=3, label=f"10 tokens, {name}", **look)
            start = crossing(lines["size"], lines["exchange_ratio"])
            if start is not None and start > lines["size"].iloc[0]:
                _mark(axes, start, name, look, height=0.03 if mixer == "pooled" else 0.11)
        axes.axhline(1, color="0.3", linewidth=0.8)
    _one_legend(figure, panels)
    return figure


def accuracy_by_scene(rows: pd.DataFrame) -> Figure:
    """mIoU of each exchange against the side of the cue scenes it was trained on, with its 95 % interval over seeds.

    ``rows`` are those of `glamlib.bench.speed_table.exchange_accuracy`.
    """
    figure, axes = plt.subplots(figsize=(7, 4))
    for place, (mixer, name) in enumerate(EXCHANGES.items()):
        lines = rows[rows["variant"] == mixer].sort_values("height")
        apart = lines["height"] + 0.8 * (place - 1)  # so that intervals do not hide one another
        axes.errorbar(
            apart, lines["miou"], _errors(lines, "miou"), capsize=4, label=name, **_style(_OF_EXCHANGE[mixer])
        )
    axes.set_xticks(sorted(rows["height"].unique()))
    axes.set_xlim(rows["height"].min() - 5, rows["height"].max() + 5)
    axes.set_xlabel("side of the scenes (pixels)")
    axes.set_ylabel("mIoU on test scenes")
    if rows["n"].max() > 1:
        axes.set_title(f"mean of {rows['n'].max()} seeds, 95 % interval (bar)", fontsize=9, loc="right")
    axes.legend(fontsize=8)
    return figure


# Studies that train these exchanges on cue scenes, each at a size of its own.
ACCURACY_STUDIES = ("mixers_48", "mixers", "mixers_96")


def exchange_accuracy(results: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the summaries' rows of `EXCHANGES` on cue scenes of all sizes, and the names of studies that have none.

    Columns: those of a study's summary (`glamlib.report.tables.summary_table`); ``height`` is the side of the scenes.
    """
    found = {name: read_table(results, f"{name}_summary") for name in ACCURACY_STUDIES}
    known = [summary[summary["variant"].isin(EXCHANGES)] for summary in found.values() if summary is not None]
    rows = pd.concat(known, ignore_index=True) if known else pd.DataFrame()
    return rows, [name for name, summary in found.items() if summary is None]


def when_it_pays(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each linear exchange and pass: from which size on it is faster than G-MSA, and by what.

    Faster by the median of the rounds; sizes from there on at which some round was not are named.
    """
    rows = headline(table)
    rows = rows[(rows["tokens"] == 10) & rows["exchange_ratio"].notna()]
    sentences = []
    for mixer, name in list(EXCHANGES.items())[1:]:
        for direction, lines in rows[rows["mixer"] == mixer].groupby("pass"):
            lines = lines.sort_values("size")
            start, last = crossing(lines["size"], lines["exchange_ratio"]), lines.iloc[-1]
            if start is None:
                where = "at no size measured"
            elif start == lines["size"].iloc[0]:
                where = "at every size measured"
            else:
                where = f"from about {start:.0f} pixels a side on"
            share = f"{last['exchange_ratio']:.2f} of its time at {last['size']} pixels"
            told = f"{name}, {direction}: faster than G-MSA {where} ({share})"
            doubtful = lines[(lines["exchange_ratio"] < 1) & (lines["exchange_ratio_high"] >= 1)]["size"]
            if start is not None and (doubtful >= start).any():
                told += f", but not in every round at {' and '.join(map(str, doubtful[doubtful >= start]))} pixels"
            sentences.append(told)
    return sentences


def what_it_costs_in_accuracy(rows: pd.DataFrame) -> list[str]:
    """Return a sentence for each linear exchange: its mIoU less G-MSA's, paired by seed, at each size of scenes."""
    sentences = []
    for mixer, name in list(EXCHANGES.items())[1:] if len(rows) else ():
        told = []
        for row in rows[rows["variant"] == mixer].sort_values("height").to_dict("records"):
            interval = f" ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})" if row["n"] > 1 else " (one seed)"
            told.append(f"{row['gain']:+.3f}{interval} at {row['height']} pixels")
        if told:
            sentences.append(f"{name}: mIoU against G-MSA's {', '.join(told)}")
    return sentences

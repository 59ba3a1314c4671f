"""Charts of a study's scores and curves, and the look of all figures: colour-blind safe, and readable in grey."""

from io import BytesIO
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from glamlib.evaluation.cues import BIN
from glamlib.files import write_whole
from glamlib.report.statistics import score_interval
from glamlib.report.tables import METRIC_NAMES, read_table
from glamlib.runs import records
from glamlib.studies.study import Study
from glamlib.training.datasets import VOLUME_DATA
from glamlib.training.tasks import AUXILIARY_WEIGHT

_MARKERS = "osD^vPX>"
_FEW = 6  # curves or marks that are labelled directly
_LINES = ("-", "--", "-.", ":")


def use_style() -> None:
    """Set the look of all figures that follow."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=1.15)
    plt.rcParams |= {"figure.dpi": 100, "figure.constrained_layout.use": True, "axes.titlesize": 9}
    plt.rcParams |= {"image.cmap": "cividis", "image.interpolation": "nearest"}


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, atomically, and return its path."""
    image = BytesIO()
    figure.savefig(image, format="png", dpi=120, metadata={"Software": None})
    write_whole(path, image.getvalue())
    return path


def save(figure: Figure, results: Path, name: str) -> Path:
    """Write ``results/figures/NAME.png`` and return its path."""
    return save_picture(figure, results / "figures" / f"{name}.png")


def show_image(axes: Axes, image: np.ndarray, title: str, **options: object) -> None:
    """Draw an image ``(3, H, W)`` or a map ``(H, W)`` without ticks; ``options`` are those of ``imshow``."""
    axes.imshow(image.transpose(1, 2, 0) if image.ndim == 3 else image, **options)
    axes.set(xticks=[], yticks=[], title=title)


def _styles(study: Study) -> dict[str, dict[str, object]]:
    """Return one colour, marker and line style for each variant's label, the same in every figure."""
    labels = [variant.label for variant in study.variants.values()]
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.6, "markersize": 6}
    looks = zip(labels, sns.color_palette("colorblind", len(labels)), cycle(_MARKERS), cycle(_LINES), strict=False)
    names = ("label", "color", "marker", "linestyle")
    return {look[0]: edge | dict(zip(names, look, strict=True)) for look in looks}


def _marks(study: Study, rows: pd.DataFrame) -> dict[str, object]:
    """Return seaborn's arguments for one mark a variant, in the look of `_styles`."""
    looks = {label: look for label, look in _styles(study).items() if label in set(rows["label"])}
    colours, markers = ([look[part] for look in looks.values()] for part in ("color", "marker"))
    style = {"linestyle": "none", "markersize": 7, "markeredgewidth": 0.8, "markeredgecolor": "black"}
    return style | {"data": rows, "hue": "label", "hue_order": list(looks), "palette": colours, "markers": markers}


def label_ends(axes: Axes) -> None:
    """Write the labels of curves beside their right ends, or in a legend where more than `_FEW` remain.

    Of curves that coincide the first is left, and its label names them all, joined by "=".
    """
    axes.autoscale_view()
    groups = []  # of an artist, its course in fractions of the axes, and names
    for line in (line for line in list(axes.lines) if not line.get_label().startswith("_")):
        course = axes.transAxes.inverted().transform(line.get_transform().transform(line.get_xydata()))
        if not len(course := course[np.isfinite(course).all(axis=1)]):  # nowhere a value
            continue
        same = (one for one in groups if one[1].shape == course.shape and abs(one[1] - course).max() < 0.03)
        if group := next(same, None):
            line.remove()
            group[2].append(line.get_label())
        else:
            groups.append((line, course, [line.get_label()]))
    if len(groups) > _FEW:
        for line, _, names in groups:
            line.set_label("\n= ".join(names))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
        return
    groups.sort(key=lambda group: group[1][-1, 1], reverse=True)
    unit = 1.45 * 8 * axes.figure.dpi / 72 / axes.bbox.height  # a line of text of 8 points
    heights = np.array([unit * (len(names) + 0.3) for *_, names in groups])
    touching = heights.cumsum() - heights / 2  # how far below the top labels without gaps would be
    ends = np.array([course[-1, 1] for _, course, _ in groups])
    centres = np.minimum.accumulate((ends + touching).clip(max=1.04)) - touching
    centres += (heights / 2 - centres).max(initial=0)  # what ends below the axes moves up, with all above it
    for (_, course, names), centre in zip(groups, centres, strict=True):
        pointer = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.8, "shrinkB": 4, "relpos": (0, 0.5)}
        place = dict.fromkeys(("xycoords", "textcoords"), "axes fraction") | {"xytext": (1.06, centre), "va": "center"}
        axes.annotate("\n= ".join(names), course[-1], arrowprops=pointer, fontsize=8, annotation_clip=False, **place)


def _draw_blind(axes: Axes, runs: pd.DataFrame, study: Study, along: str) -> None:
    """Draw and name what the study's metric is without looking: an image-blind prior's, or a guess's, if known."""
    name = "prior" if "prior" in runs else "cue_chance" if study.metric == "right_given_found" else None
    if name in runs and (score := runs[name].iloc[0]) > 0:
        word = "image-blind prior" if name == "prior" else "guessing"
        draw, place, turn = (axes.axhline, (1, score), 0) if along == "x" else (axes.axvline, (score, 0), 90)
        draw(score, color="black", linestyle=":", linewidth=1)
        where = axes.get_yaxis_transform() if along == "x" else axes.get_xaxis_transform()
        axes.text(*place, f" {word} ", transform=where, rotation=turn, ha="right", va="bottom", fontsize=8)


def score_by_variant(study: Study, results: Path) -> Figure:
    """Mean of the study's metric of each variant with its 95 % interval over seeds, and every run as a small mark."""
    runs = read_table(results, study.name)
    figure, axes = plt.subplots(figsize=(6, 0.36 * runs["label"].nunique() + 1.2))
    marks = _marks(study, runs) | {"y": "label", "x": study.metric, "ax": axes, "legend": False}
    bar = {"linewidth": 3, "alpha": 0.6}
    sns.pointplot(**marks, errorbar=lambda scores: score_interval(scores)[2:], err_kws=bar, clip_on=False)
    sns.stripplot(runs, x=study.metric, y="label", marker="|", color="0.35", size=7, linewidth=1, jitter=False, ax=axes)
    _draw_blind(axes, runs, study, along="y")
    axes.set(xlabel=f"{METRIC_NAMES[study.metric]} on test data", ylabel="")
    axes.grid(axis="x", alpha=0.4)
    axes.set_title("mean over seeds, 95 % interval, single runs (|)", loc="right")
    return figure


def score_against_cost(study: Study, results: Path) -> Figure:
    """Mean of the study's metric with its 95 % interval over seeds against the cost of one image."""
    runs = read_table(results, study.name)
    axes, styles, few = plt.subplots(figsize=(6, 3.6))[1], _styles(study), runs["label"].nunique() <= _FEW
    by_cost = runs.sort_values("gmacs").groupby("label", sort=False)
    for (label, own), above in zip(by_cost, cycle((7, -14, -26)), strict=False):  # names of neighbours stay apart
        (_, mean, low, high), x = score_interval(own[study.metric]), own["gmacs"].iloc[0] * 1e3
        bar = {"capsize": 3, "yerr": np.abs([[low - mean], [high - mean]])}
        axes.errorbar(x, mean, **styles[label] | bar | {"linestyle": "none", "clip_on": False})
        if few:
            side = "right" if x == runs["gmacs"].max() * 1e3 else "left"
            axes.annotate(label, (x, mean), (0, above), textcoords="offset points", fontsize=8, ha=side)
    _draw_blind(axes, runs, study, along="x")
    size = "x".join(str(runs[name].iloc[0]) for name in ("depth", "height", "width") if name in runs)
    of = f"one {'patch' if 'depth' in runs else 'image'} of {size}"
    axes.set(xlabel=f"cost of {of} (million multiply-adds)", ylabel=METRIC_NAMES[study.metric])
    axes.set_title("mean over seeds and 95 % interval (bar)", loc="right")
    axes.margins(x=0.05, y=0.12)
    if not few:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return axes.figure


def accuracy_by_distance(study: Study, results: Path, ceiling: pd.DataFrame | None = None) -> Figure:
    """Share of found shape pixels of the right class against the distance from the cue, over all seeds.

    ``ceiling`` is what the baseline cannot exceed, of `ceiling_by_distance`, drawn as a line.
    """
    held, _ = records.comparable(results, study)
    bins = [pd.DataFrame(one["metrics"]["by_distance"]).assign(variant=one["parameters"]["variant"]) for one in held]
    rows = pd.concat(bins, ignore_index=True).eval("distance = (from_px + to_px) / 2")
    rows[["found", "accuracy"]] = rows[["found", "accuracy"]].mul(rows["pixels"], axis=0)  # counts, to sum over seeds
    unit = "voxel" if study.dataset in VOLUME_DATA else "pixel"
    axes, styles = plt.subplots(figsize=(6, 3.6))[1], _styles(study)
    axes.axhline(held[0]["metrics"]["cue_chance"], color="black", linestyle=":", linewidth=1, label="guessing")
    if ceiling is not None:
        label = f"ceiling of {study.variants[study.baseline].label}'s windows"
        axes.plot(ceiling["distance"], ceiling["accuracy"], color="0.4", linewidth=5, alpha=0.4, label=label)
    for name, own in rows.groupby("variant", sort=False):
        sums = own.groupby("distance")[["found", "accuracy"]].sum()
        axes.plot(sums["accuracy"] / sums["found"], **styles[study.variants[name].label])
    axes.set(xlabel=f"distance from cue to shape ({unit}s, bins of {BIN})", ylabel=f"right class, of {unit}s found")
    axes.set_title("mean over seeds; =: curves that coincide, drawn as one", loc="right")
    axes.set_ylim(None, 1.02)
    label_ends(axes)
    return axes.figure


def _loss_of(study: Study, results: Path) -> str:
    """Return what a study's training loss is made of, and where variants' losses are not of the same parts."""
    if study.dataset in VOLUME_DATA:
        return "1 - Dice + cross-entropy in nats"
    balanced = records.read_records(results, study.name)[0]["parameters"]["loss"] == "balanced"
    parts = f"{'class-balanced ' * balanced}cross-entropy, nats per pixel"
    stages = len(study.overrides.get("depths", range(4)))  # a network of one stage has no auxiliary head
    if stages > 1 and any(variant.model.endswith("_upernet") for variant in study.variants.values()):
        parts += f";\nUPerNet's with {AUXILIARY_WEIGHT} of its auxiliary head's"
    return parts


def training_curves(study: Study, results: Path, score: str | None = None) -> Figure:
    """Training loss of each variant, smoothed over five logged steps, or a ``score`` in its history, mean over runs.

    A run that ended early, at the criterion, counts with its last value.
    """
    axes, styles = plt.subplots(figsize=(6, 3.6))[1], _styles(study)
    for name, histories in records.read_histories(results, study).items():
        courses = [one.set_index("step")[score or "loss"].dropna() for one in histories]
        runs = pd.concat(courses, axis=1).sort_index().ffill()
        means = runs.mean(axis=1) if score else runs.mean(axis=1).rolling(5, min_periods=1).mean()
        axes.plot(means, **styles[study.variants[name].label], markevery=0.2)
    if score:
        axes.set(xlabel="optimiser step", ylabel=f"{METRIC_NAMES[study.metric]} on data held out\n(mean over runs)")
    else:
        axes.set(xlabel="optimiser step", ylabel=f"training loss\n({_loss_of(study, results)})", yscale="log")
        axes.yaxis.set(major_locator=LogLocator(subs=(1, 1.5, 2, 3, 5, 7)), major_formatter="{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_title("mean over seeds, smoothed; a run that has\nended counts with its last loss", loc="right")
    label_ends(axes)
    return axes.figure


def score_by_class(study: Study, results: Path, score: str = "iou") -> Figure:
    """IoU (or "dice") of each class, mean over seeds with their range, in the baseline's order; sides stay together."""
    runs = read_table(results, study.name)
    means = runs[runs["variant"] == study.baseline].filter(regex=f"^{score}_(?!synapse_rule$)").mean()
    pair = means.index.str.replace("_(?:left|right) ", "_", regex=True)
    order = means.index[np.lexsort((pd.factorize(pair)[0], -means.groupby(pair).transform("mean")))]
    rows = runs.melt(["label"], means.index, "class", "score").dropna()
    count = rows["label"].nunique()
    axes = plt.subplots(figsize=(6, max(0.38, 0.09 * count) * len(means) + 1.2))[1]
    marks = _marks(study, rows) | {"y": "class", "x": "score", "order": order, "ax": axes}
    sns.pointplot(**marks, dodge=0.6 * (count > 1), errorbar=("pi", 100), err_kws={"linewidth": 2, "alpha": 0.6})
    axes.set_yticks(range(len(order)), [name.removeprefix(f"{score}_") for name in order])
    axes.grid(axis="x", alpha=0.4)
    axes.set_title("mean over seeds\nbar: lowest to highest", loc="right")
    axes.set(xlabel=f"{'IoU' if score == 'iou' else 'Dice'} on test data", ylabel="")
    axes.get_legend().remove()
    axes.figure.legend(*axes.get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return axes.figure

"""The study's figures in one look: colour-blind safe, and readable in grey (markers and line styles beside colour).

A figure of a study takes the study and the results folder, whose tables and records it reads.
"""

from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from glamlib.data.scenes import CUE_COLOURS, CueScenes, draw_scene
from glamlib.evaluation.cues import BIN
from glamlib.files import write_whole
from glamlib.report.statistics import score_interval
from glamlib.report.tables import METRIC_NAMES, read_table
from glamlib.runs import records
from glamlib.studies.study import Study
from glamlib.training.datasets import VOLUME_DATA
from glamlib.training.tasks import AUXILIARY_WEIGHT

_MARKERS = "osD^vPX>"
_DASHES = ("", (4, 2), (6, 2, 1, 2), (1, 1))
_COINCIDE = 0.02  # of scores: nearer curves are one to the eye


def use_style() -> None:
    """Set the look of all figures that follow."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=1.1)
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


def cue_tile(scenes: CueScenes, index: int) -> np.ndarray:
    """Return where the cue's tile lies in scene ``index``: ``(H, W)`` bool.

    A scene's noise is drawn last, so the scene without noise has the same layout in pure colours.
    """
    clean = draw_scene(replace(scenes.config, noise=0), scenes.seed, index)
    return (clean.image == np.array(CUE_COLOURS[clean.cue - 1])[:, None, None]).all(axis=0)


def _look(study: Study, rows: pd.DataFrame, line: bool = True) -> dict[str, object]:
    """Return seaborn's arguments for one colour, marker and line style a variant, the same in every figure."""
    labels = [variant.label for variant in study.variants.values()]
    shown = [label for label in labels if label in set(rows["label"])]
    markers = {label: _MARKERS[i % len(_MARKERS)] for i, label in enumerate(labels)}
    palette = dict(zip(labels, sns.color_palette("colorblind", len(labels)), strict=True))
    look = {"data": rows, "hue": "label", "hue_order": shown, "palette": palette, "markeredgecolor": "black"}
    if not line:
        style = {"linestyle": "none", "markersize": 7, "markeredgewidth": 0.8}
        return look | style | {"markers": [markers[label] for label in shown]}
    dashes = {label: _DASHES[i % len(_DASHES)] for i, label in enumerate(labels)}
    return look | {"style": "label", "style_order": shown, "markers": markers, "dashes": dashes}


def _finished(axes: Axes, xlabel: str, ylabel: str) -> Figure:
    """Return the figure of ``axes`` with labels, and the legend beside them."""
    axes.set(xlabel=xlabel, ylabel=ylabel)
    sns.move_legend(axes, "center left", bbox_to_anchor=(1, 0.5), title=None, frameon=False)
    return axes.figure


def t_interval(scores: pd.Series) -> tuple[float, float]:
    """Return the ends of `score_interval`, as seaborn's ``errorbar`` wants them."""
    found = score_interval(scores)
    return found.low, found.high


def score_by_variant(study: Study, results: Path) -> Figure:
    """Mean of the study's metric of each variant with its 95 % interval over seeds, and every run as a small mark."""
    runs = read_table(results, study.name)
    figure, axes = plt.subplots(figsize=(7, 0.4 * runs["label"].nunique() + 1.2))
    look = _look(study, runs, line=False) | {"y": "label", "x": study.metric, "ax": axes, "legend": False}
    sns.pointplot(**look, errorbar=t_interval, err_kws={"linewidth": 3, "alpha": 0.6}, clip_on=False)
    sns.stripplot(runs, x=study.metric, y="label", marker="|", color="0.35", size=7, linewidth=1, jitter=False, ax=axes)
    axes.set(xlabel=f"{METRIC_NAMES[study.metric]} on test data", ylabel="")
    axes.grid(axis="x", alpha=0.4)
    axes.set_title(f"mean over {runs['seed'].nunique()} seeds, 95 % interval, single runs (|)", loc="right")
    return figure


def score_against_cost(study: Study, results: Path) -> Figure:
    """Mean of the study's metric with its 95 % interval over seeds against the cost of one image."""
    runs = read_table(results, study.name)
    axes = plt.subplots(figsize=(7, 4))[1]
    runs["cost"] = runs["gmacs"] * 1e3
    bars = {"err_style": "bars", "err_kws": {"capsize": 3}}
    sns.lineplot(**_look(study, runs), x="cost", y=study.metric, errorbar=t_interval, **bars, ax=axes)
    size = "x".join(str(runs[name].iloc[0]) for name in ("depth", "height", "width") if name in runs)
    cost = f"cost of one {'patch' if 'depth' in runs else 'image'} of {size} (million multiply-adds)"
    return _finished(axes, cost, f"{METRIC_NAMES[study.metric]} (95 % interval over seeds)")


def accuracy_by_distance(study: Study, results: Path, ceiling: pd.DataFrame | None = None) -> Figure:
    """Share of found shape pixels of the right class against the distance from the cue, over all seeds.

    Of curves that nowhere differ by more than 0.02 the first is drawn, with the names of all.

    Args:
        ceiling: what the baseline cannot exceed, of `ceiling_by_distance`, drawn as a line.
    """
    held = [one for one in records.read_records(results, study.name) if one["parameters"]["variant"] in study.variants]
    label_of = {name: variant.label for name, variant in study.variants.items()}
    bins = [pd.DataFrame(one["metrics"]["by_distance"]).assign(variant=one["parameters"]["variant"]) for one in held]
    rows = pd.concat(bins, ignore_index=True).assign(distance=lambda table: (table["from_px"] + table["to_px"]) / 2)
    rows["label"] = rows["variant"].map(label_of)
    rows[["found", "accuracy"]] = rows[["found", "accuracy"]].mul(rows["pixels"], axis=0)  # counts, to sum over seeds
    sums = rows.groupby(["distance", "label"], sort=False)[["found", "accuracy"]].sum()
    order = [label for label in label_of.values() if label in set(rows["label"])]
    curves = (sums["accuracy"] / sums["found"]).unstack("label")[order]  # (distance, label)
    names: dict[str, list[str]] = {}  # of the curves that coincide with one that is drawn
    for label in curves:
        near = (abs(curves[list(names)].sub(curves[label], axis=0)).max() <= _COINCIDE).to_dict()
        names.setdefault(next((one for one in near if near[one]), label), []).append(label)
    unit = "voxel" if study.dataset in VOLUME_DATA else "pixel"
    axes = plt.subplots(figsize=(7, 4))[1]
    ends = {"guessing the class": (chance := held[0]["metrics"]["cue_chance"])}
    axes.axhline(chance, color="black", linewidth=1)
    if ceiling is not None:
        axes.plot(ceiling["distance"], ceiling["accuracy"], color="0.4", linewidth=5, alpha=0.4)
        ends[f"ceiling of {label_of[study.baseline]}'s windows"] = ceiling["accuracy"].iloc[-1]
    shown = curves[list(names)].melt(value_name="accuracy", ignore_index=False).reset_index()
    sns.lineplot(**_look(study, shown), x="distance", y="accuracy", errorbar=None, legend=False, ax=axes)
    ends |= {"\n= ".join(same): curves[label].iloc[-1] for label, same in names.items()}
    axes.set(ylim=(None, 1.02), ylabel=f"right class, of {unit}s found (mean over seeds)")
    axes.set(
        xlabel=f"distance from cue to shape ({unit}s, bins of {BIN})", title="=: curves that coincide, drawn as one"
    )
    _name_ends(axes, ends)
    return axes.figure


def _name_ends(axes: Axes, ends: dict[str, float]) -> None:
    """Write a name beside the right end of each curve, one above the other, with a thin line to its height."""
    (left, right), floor = axes.get_xlim(), -np.inf
    bottom, top = axes.get_ylim()
    line = {"arrowstyle": "-", "color": "0.6", "relpos": (0, 0.5)}
    for name, height in sorted(ends.items(), key=lambda item: item[1]):
        half = 0.026 * (top - bottom) * (name.count("\n") + 1)
        middle = max(height, floor + half)
        floor = middle + half
        place = {"xytext": (right + 0.05 * (right - left), middle), "va": "center", "annotation_clip": False}
        axes.annotate(name, (right, height), **place, fontsize=8, arrowprops=line)


def _loss_of(study: Study) -> str:
    """Return what a study's training loss is made of, and where variants' losses are not of the same parts."""
    if study.dataset in VOLUME_DATA:
        return "1 - Dice + cross-entropy in nats"
    parts = "cross-entropy, nats a pixel"
    stages = len(study.overrides.get("depths", "four"))  # a network of one stage has no auxiliary head
    if stages > 1 and any(variant.model.endswith("_upernet") for variant in study.variants.values()):
        parts += f";\nUPerNet's with {AUXILIARY_WEIGHT} of its auxiliary head's"
    return parts


def training_curves(study: Study, results: Path, score: str | None = None) -> Figure:
    """Training loss of each variant, smoothed over five logged steps, or a ``score`` in its history, mean over runs."""
    curves, shown = [], score or "loss"
    for name, variant in study.variants.items():
        if histories := records.read_histories(results, study.name, name):
            means = pd.concat(histories).groupby("step")[shown].mean().dropna()
            means = means if score else means.rolling(5, min_periods=1).mean()
            curves.append(means.reset_index().assign(label=variant.label))
    axes = plt.subplots(figsize=(7, 4))[1]
    sns.lineplot(**_look(study, pd.concat(curves)), x="step", y=shown, errorbar=None, markevery=0.1, ax=axes)
    if score:
        return _finished(axes, "optimiser step", f"{METRIC_NAMES[study.metric]} on validation data (mean over seeds)")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("mean over seeds, smoothed over five logged steps", loc="right")
    return _finished(axes, "optimiser step", f"training loss\n({_loss_of(study)})")


def score_by_class(study: Study, results: Path, score: str = "iou") -> Figure:
    """IoU (or "dice") of each class, mean over seeds with their range; classes in the order of the baseline's."""
    runs = read_table(results, study.name)
    classes = records.read_records(results, study.name)[0]["classes"]
    columns = [f"{score}_{name}" for name in classes if f"{score}_{name}" in runs]
    order = runs[runs["variant"] == study.baseline][columns].mean().sort_values(ascending=False).index
    rows = runs.melt(["label"], columns, "class", "score").dropna()
    count = rows["label"].nunique()
    axes = plt.subplots(figsize=(7, max(0.38, 0.07 * count) * len(columns) + 1.2))[1]
    look = _look(study, rows, line=False) | {"y": "class", "x": "score", "order": order, "ax": axes}
    sns.pointplot(**look, dodge=0.6 * (count > 1), errorbar=("pi", 100), err_kws={"linewidth": 2, "alpha": 0.6})
    axes.set_yticks(range(len(order)), [name.removeprefix(f"{score}_") for name in order])
    axes.grid(axis="x", alpha=0.4)
    axes.set_title("mean over seeds, and the lowest to the highest (bar)", loc="right")
    return _finished(axes, f"{'IoU' if score == 'iou' else 'Dice'} on test data", "")


def _pictures(study: Study, results: Path, variants: Iterable[str] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays beside the records of the first seed, by label, of the variants that have them."""
    chosen = study.variants if variants is None else variants
    found = {study.variants[name].label: records.read_pictures(results, study.name, name) for name in chosen}
    return {label: arrays for label, arrays in found.items() if arrays}


def _grid(panels: dict[str, np.ndarray], **options: object) -> tuple[Figure, np.ndarray]:
    """Draw columns of pictures: ``panels`` maps a title to ``(n, H, W)`` or ``(n, 3, H, W)``."""
    (count, *_, height, width) = next(iter(panels.values())).shape
    size = (1.8 * len(panels), 1.8 * count * height / width + 0.7)
    figure, grid = plt.subplots(count, len(panels), figsize=size, squeeze=False)
    for column, (title, images) in zip(grid.T, panels.items(), strict=True):
        for i, (axes, image) in enumerate(zip(column, images, strict=True)):
            show_image(axes, image, title.replace(", ", ",\n") if i == 0 else "", **options)
    return figure, grid


def predictions(
    study: Study, results: Path, palette: Iterable[tuple[int, int, int]], variants: Iterable[str] | None = None
) -> Figure:
    """Test images, their truth, and what each variant predicts (first seed); the classes' colours below."""
    pictures = _pictures(study, results, variants)
    colours = np.full((256, 3), 255, dtype=np.uint8)  # void is white
    colours[: len(palette)] = palette
    first = next(iter(pictures.values()))
    labels = {"truth": first["labels"]} | {label: arrays["predictions"] for label, arrays in pictures.items()}
    painted = {title: colours[numbers].transpose(0, 3, 1, 2) for title, numbers in labels.items()}
    figure, _ = _grid({"image": first["images"]} | painted)
    names = list(records.read_records(results, study.name)[0]["classes"])
    if first["labels"].max() >= len(names):
        names.append("void")
    handles = [Patch(facecolor=colours[i] / 255, edgecolor="black", linewidth=0.5) for i in range(len(names))]
    figure.legend(handles, names, ncols=6, loc="outside lower center", fontsize=8)
    return figure


def receptive_fields(study: Study, results: Path, variants: Iterable[str] | None = None) -> Figure:
    """Effective receptive field of the centre pixel, each variant's largest value 1, on a logarithmic scale."""
    pictures = _pictures(study, results, variants)
    columns = min(len(pictures), 4)
    rows = -(-len(pictures) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2.1 * columns + 0.9, 2.3 * rows), squeeze=False)
    for axes in grid.flat[len(pictures) :]:
        axes.axis("off")
    for axes, (label, arrays) in zip(grid.flat, pictures.items(), strict=False):
        field = np.maximum(arrays["erf"].astype(np.float32), 1e-4)
        show_image(axes, field, label, norm=LogNorm(1e-4, 1), cmap="viridis")
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, shrink=0.8)
    bar.set_label("influence on the centre pixel\n(share of the largest)")
    return figure


def slices(study: Study, results: Path) -> Figure:
    """Slices of test volumes, the truth's outlines, and beside it those of each variant's prediction (first seed).

    Rows run from posterior to anterior and columns from left to right, so anterior is on top.
    """
    pictures = _pictures(study, results)
    classes = records.read_records(results, study.name)[0]["classes"]
    palette = structure_colours(len(classes) - 1)
    first = next(iter(pictures.values()))
    labels = {"slice": np.zeros_like(first["labels"]), "truth": first["labels"]}
    labels |= {label: arrays["predictions"] for label, arrays in pictures.items()}
    figure, grid = _grid(dict.fromkeys(labels, first["images"]), cmap="gray", origin="lower")
    for column, planes in zip(grid.T, labels.values(), strict=True):
        for axes, plane in zip(column, planes, strict=True):
            draw_contours(axes, plane, palette)
    shown = sorted({int(number) for planes in labels.values() for number in np.unique(planes)} - {0})
    handles = [Line2D([], [], color=palette[number - 1], linewidth=2) for number in shown]
    names = [classes[number] for number in shown]
    figure.legend(handles, names, ncols=min(len(labels), 5), loc="outside lower center", fontsize=8)
    return figure


def structure_colours(count: int) -> list[tuple[float, float, float]]:
    """Return a colour for each structure: colour-blind safe for up to ten."""
    return sns.color_palette("colorblind", count) if count <= 10 else sns.husl_palette(count, s=1, l=0.7)


def draw_contours(axes: Axes, labels: np.ndarray, palette: list[tuple[float, float, float]]) -> None:
    """Draw the outline of every structure of a label map ``(H, W)``, structure k in ``palette[k - 1]``."""
    axes.autoscale(False)  # the picture keeps its size
    rows, columns = (np.arange(-1, side + 1) for side in labels.shape)
    for number in np.unique(labels[labels > 0]):
        inside = np.pad(labels == number, 1)  # a structure at the border would have no line there
        axes.contour(columns, rows, inside, [0.5], colors=[palette[number - 1]], linewidths=1.3)

"""What the notebooks' pictures share: one look, an image on axes in pixels, and where a scene's cue tile lies.

MERGED: The study's figures, in one look: colour-blind safe, readable in grey (markers and line styles beside colour).

MERGED: Figures of volumes, in the look of `plots`.
"""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from glamlib.data.scenes import CUE_COLOURS, CueScenes, draw_scene
from glamlib.evaluation.cues import BIN
from glamlib.files import write_whole
from glamlib.report.claims import METRIC_NAMES
from glamlib.studies.study import Study
from glamlib.training.datasets import VOLUME_DATA
from glamlib.training.tasks import AUXILIARY_WEIGHT


def use_look() -> None:
    """Set the look of all figures that follow: plain, colour-blind safe, 100 dots an inch."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    sns.mpl.rcParams.update({"figure.dpi": 100, "savefig.dpi": 100, "image.cmap": "cividis", "axes.titlesize": 9})


def show_image(axes: Axes, image: np.ndarray, title: str) -> None:
    """Draw an image ``(3, H, W)`` or a map ``(H, W)`` without ticks; the title says what it is."""
    axes.imshow(image.transpose(1, 2, 0) if image.ndim == 3 else image, interpolation="nearest")
    axes.set(xticks=[], yticks=[], title=title)


def cue_tile(scenes: CueScenes, index: int) -> np.ndarray:
    """Return where the cue's tile lies in scene ``index``: ``(H, W)`` bool.

    A scene's noise is drawn after everything else, so the scene without noise lies the same, in pure colours.
    """
    clean = draw_scene(replace(scenes.config, noise=0), scenes.seed, index)
    return (clean.image == np.array(CUE_COLOURS[clean.cue - 1])[:, None, None]).all(axis=0)


_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP*X"


def use_style() -> None:
    """Set the look of all figures."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 100, "savefig.dpi": 120, "figure.constrained_layout.use": True, "font.size": 10}


def save(figure: Figure, results: Path, name: str) -> Path:
    """Write ``results/figures/NAME.png`` whole, and return its path."""
    from io import BytesIO

    image = BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    path = results / "figures" / f"{name}.png"
    write_whole(path, image.getvalue())
    return path


def _look(study: Study) -> dict[str, dict[str, object]]:
    """Return colour, marker and line style of each variant: the same in every figure of a study."""
    colours = sns.color_palette("colorblind", len(study.variants))
    return {
        variant: {"color": colours[i], "marker": _MARKERS[i % len(_MARKERS)], "linestyle": _STYLES[i % len(_STYLES)]}
        for i, variant in enumerate(study.variants)
    }


def score_by_variant(study: Study, runs: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Mean of the study's metric of each variant with its 95 % interval over seeds, and every run as a small mark."""
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(summary) + 1.4))
    look, metric = _look(study), study.metric
    for place, row in enumerate(summary.to_dict("records")):
        style = look[row["variant"]]
        values = runs.loc[runs["variant"] == row["variant"], metric]
        axes.plot(values, np.full(len(values), place - 0.22), "|", color="0.35", markersize=7)
        if row["n"] > 1:
            ends = [row[f"{metric}_low"], row[f"{metric}_high"]]
            axes.plot(ends, [place, place], color=style["color"], linewidth=3, alpha=0.6)
        mark = {"marker": style["marker"], "markersize": 8, "markeredgecolor": "black"}
        axes.plot(row[metric], place, color=style["color"], **mark, clip_on=False, zorder=3)  # whole at a score of 1
    axes.set_yticks(range(len(summary)), summary["label"])
    axes.set_ylim(len(summary) - 0.5, -0.6)
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.0))
    axes.set_xlabel(f"{METRIC_NAMES[metric]} on test data")
    axes.set_title(f"mean of {summary['n'].max()} seeds, 95 % interval (bar), single runs (|)", fontsize=9, loc="right")
    return figure


def score_against_cost(study: Study, summary: pd.DataFrame) -> Figure:
    """Mean of the study's metric with its interval against the cost of one image, one mark a variant."""
    figure, axes = plt.subplots(figsize=(7, 4))
    look, metric = _look(study), study.metric
    for row in summary.to_dict("records"):
        style, mean = look[row["variant"]], row[metric]
        error = [[mean - row[f"{metric}_low"]], [row[f"{metric}_high"] - mean]] if row["n"] > 1 else None
        axes.errorbar(
            row["gmacs"] * 1e3,
            mean,
            error,
            fmt=style["marker"],
            color=style["color"],
            markersize=7,
            markeredgecolor="black",
            alpha=0.85,  # marks of equal cost lie on each other
            capsize=3,
            label=row["label"],
        )
    sides = [str(summary[name].iloc[0]) for name in ("depth", "height", "width") if name in summary]
    what = "patch" if len(sides) == 3 else "image"
    axes.set_xlabel(f"cost of one {what} of {'x'.join(sides)} (million multiply-adds)")
    axes.set_ylabel(f"{METRIC_NAMES[metric]} (95 % interval over seeds)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def accuracy_by_distance(study: Study, records: list[dict[str, object]], reach: float | None = None) -> Figure:
    """Share of shape pixels of the right class against the distance from the cue, mean over seeds; chance as a line.

    Args:
        reach: pixels (voxels) beyond which the baseline cannot see the cue along an axis (drawn as a line).
    """
    rows = [
        {"variant": record["parameters"]["variant"], "distance": (row["from_px"] + row["to_px"]) / 2} | row
        for record in records
        for row in record["metrics"]["by_distance"]
    ]
    table = pd.DataFrame(rows)
    figure, axes = plt.subplots(figsize=(7, 4))
    for variant, style in _look(study).items():
        part = table[table["variant"] == variant]
        if part.empty:
            continue
        share = part.groupby("distance").apply(lambda bin: np.average(bin["accuracy"], weights=bin["pixels"]))
        axes.plot(share.index, share.values, label=study.variants[variant].label, **style, markeredgecolor="black")
    baseline, unit = study.variants[study.baseline].label, "voxel" if study.dataset in VOLUME_DATA else "pixel"
    axes.axhline(records[0]["metrics"]["cue_chance"], color="black", linewidth=1, label="guessing the class")
    if reach:
        axes.axvline(reach, color="0.4", linewidth=1, linestyle=(0, (1, 2)), label=f"reach of {baseline}'s two blocks")
    axes.set_xlabel(f"distance from cue to shape ({unit}s, bins of {BIN})")
    axes.set_ylabel(f"shape {unit}s of the right class")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _loss_of(study: Study) -> str:
    """Return what a study's training loss is made of, and where variants' losses are not of the same parts."""
    if study.dataset in VOLUME_DATA:
        return "1 - Dice + cross-entropy in nats"
    parts = "cross-entropy, nats a pixel"
    stages = len(study.overrides.get("depths", "four"))  # a network of one stage has no auxiliary head
    if stages > 1 and any(variant.model.endswith("_upernet") for variant in study.variants.values()):
        parts += f";\nUPerNet's with {AUXILIARY_WEIGHT} of its auxiliary head's"
    return parts


def training_curves(study: Study, histories: dict[str, list[pd.DataFrame]]) -> Figure:
    """Training loss of each variant (``histories``: a frame a seed), smoothed over five rows, mean over seeds."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for variant, style in _look(study).items():
        if variant not in histories:
            continue
        curves = pd.concat(histories[variant]).groupby("step")["loss"].mean().rolling(5, min_periods=1).mean()
        axes.plot(
            curves.index,
            curves.values,
            color=style["color"],
            linestyle=style["linestyle"],
            marker=style["marker"],
            markevery=max(len(curves) // 8, 1),
            markersize=5,
            label=study.variants[variant].label,
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"training loss ({_loss_of(study)})", fontsize=9)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("mean over seeds, smoothed over five logged steps", fontsize=9, loc="right")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _paint(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return an RGB picture of a label map ``(H, W)``; void is white."""
    picture = np.full((*label.shape, 3), 255, dtype=np.uint8)
    known = label < len(palette)
    picture[known] = palette[label[known]]
    return picture


def bare(axes: Axes) -> None:
    """Take ticks and grid away, as befits a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def predictions(
    study: Study, pictures: dict[str, dict[str, np.ndarray]], classes: list[str], palette: list[tuple[int, int, int]]
) -> Figure:
    """Test images, their truth, and what each variant predicts (seed 0); the classes' colours below."""
    first = next(iter(pictures.values()))
    columns = ["image", "truth", *(study.variants[variant].label for variant in pictures)]
    count = len(first["images"])
    height, width = first["labels"].shape[1:]
    figure, grid = plt.subplots(
        count, len(columns), figsize=(1.75 * len(columns), 1.75 * count * height / width + 0.7), squeeze=False
    )
    colours = np.asarray(palette, dtype=np.uint8)
    for i, row in enumerate(grid):
        panels = [first["images"][i].transpose(1, 2, 0), _paint(first["labels"][i], colours)]
        panels += [_paint(held["predictions"][i], colours) for held in pictures.values()]
        for axes, panel, title in zip(row, panels, columns, strict=True):
            axes.imshow(panel, interpolation="nearest")
            axes.set_title(title if i == 0 else "", fontsize=9)
            bare(axes)
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=c / 255, edgecolor="black", linewidth=0.5) for c in colours]
    names = list(classes)
    if (first["labels"] >= len(colours)).any():
        handles.append(plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor="black", linewidth=0.5))
        names.append("void")
    figure.legend(handles, names, ncols=6, loc="outside lower center", fontsize=8)
    return figure


def receptive_fields(study: Study, pictures: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Effective receptive field of the centre pixel, each variant's largest value 1, on a logarithmic scale."""
    columns = min(len(pictures), 4)
    rows = -(-len(pictures) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2.1 * columns + 0.9, 2.3 * rows), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (variant, held) in zip(grid.flat, pictures.items(), strict=False):
        axes.axis("on")
        field = np.maximum(held["erf"].astype(np.float32), 1e-4)
        image = axes.imshow(field, norm=LogNorm(1e-4, 1), cmap="viridis", interpolation="nearest")
        axes.set_title(study.variants[variant].label, fontsize=9)
        bare(axes)
    bar = figure.colorbar(image, ax=grid, shrink=0.8)
    bar.set_label("influence on the centre pixel\n(share of the largest)", fontsize=9)
    return figure


def iou_by_class(study: Study, runs: pd.DataFrame, classes: list[str]) -> Figure:
    """IoU of each class, mean over seeds with the range of the seeds, one mark a variant; classes by the baseline."""
    return _score_by_class(study, runs, classes, "iou", "IoU on test images")


def dice_by_class(study: Study, runs: pd.DataFrame, structures: list[str]) -> Figure:
    """Dice of each structure of volumes, as `iou_by_class`; a structure that is never there has no mark."""
    return _score_by_class(study, runs, structures, "dice", "Dice on test volumes")


def _score_by_class(study: Study, runs: pd.DataFrame, classes: list[str], score: str, title: str) -> Figure:
    means = runs.groupby("variant")[[f"{score}_{name}" for name in classes]].mean()
    order = means.loc[study.baseline].sort_values(ascending=False).index
    look = _look(study)
    variants = [variant for variant in study.variants if variant in means.index]
    room = max(0.38, 0.07 * len(variants))  # inches a class
    figure, axes = plt.subplots(figsize=(7, room * len(classes) + 1.2))
    for shift, variant in zip(np.linspace(-0.3, 0.3, len(variants)), variants, strict=True):
        style, values = look[variant], runs.loc[runs["variant"] == variant, order]
        places = np.arange(len(order)) + shift
        axes.hlines(places, values.min(), values.max(), color=style["color"], linewidth=2, alpha=0.6)
        axes.plot(
            values.mean(),
            places,
            style["marker"],
            color=style["color"],
            markeredgecolor="black",
            markersize=6,
            label=study.variants[variant].label,
        )
    axes.set_yticks(range(len(order)), [name.removeprefix(f"{score}_") for name in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlabel(title)
    axes.set_title("mean over seeds, and the lowest to the highest (bar)", fontsize=9, loc="right")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def slices(study: Study, pictures: dict[str, dict[str, np.ndarray]], classes: list[str]) -> Figure:
    """Slices of test volumes, the truth's contours, and beside it those of each variant's prediction (seed 0).

    Args:
        pictures: of each variant, as `VolumeGallery.arrays` makes them. Rows run from posterior to anterior and columns
            from left to right, so anterior is drawn on top and the patient's left on the left.
        classes: names, the background first; structures that no slice holds are left out of the legend.
    """
    first = next(iter(pictures.values()))
    panels = {"slice": np.zeros_like(first["labels"]), "truth": first["labels"]}
    panels |= {study.variants[variant].label: held["predictions"] for variant, held in pictures.items()}
    palette = structure_colours(len(classes) - 1)
    count, height, width = first["labels"].shape
    figure, grid = plt.subplots(
        count, len(panels), figsize=(1.9 * len(panels), 1.9 * count * height / width + 0.7), squeeze=False
    )
    for i, row in enumerate(grid):
        for axes, (title, labels) in zip(row, panels.items(), strict=True):
            axes.imshow(first["images"][i], cmap="gray", origin="lower", interpolation="nearest")
            draw_contours(axes, labels[i], palette)
            axes.set_title(title if i == 0 else "", fontsize=9)
            bare(axes)
    shown = sorted({int(value) for labels in panels.values() for value in np.unique(labels)} - {0})
    handles = [Line2D([], [], color=palette[number - 1], linewidth=2) for number in shown]
    names = [classes[number] for number in shown]
    figure.legend(handles, names, ncols=min(len(panels), 5), loc="outside lower center", fontsize=8)
    return figure


def structure_colours(count: int) -> list[tuple[float, float, float]]:
    """Return a colour of each structure: colour-blind safe as long as there are ten at most."""
    return sns.color_palette("colorblind", count) if count <= 10 else sns.husl_palette(count, s=1, l=0.7)


def draw_contours(axes: Axes, labels: np.ndarray, palette: list[tuple[float, float, float]]) -> None:
    """Draw the outline of every structure of a label map ``(H, W)``, structure k in ``palette[k - 1]``."""
    axes.autoscale(False)  # the picture below them keeps its size
    for number in np.unique(labels[labels > 0]):
        around = np.pad(labels == number, 1)  # else a structure that touches the border has no line there
        axes.contour(
            np.arange(-1, labels.shape[1] + 1),
            np.arange(-1, labels.shape[0] + 1),
            around,
            [0.5],
            colors=[palette[number - 1]],
            linewidths=1.3,
        )

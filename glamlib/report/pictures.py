"""Pictures of a study: scenes, test images and volumes with what is predicted of them, and receptive fields."""

import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from glamlib.data.scenes import CUE_COLOURS, CueScenes, draw_scene
from glamlib.data.transforms import VOID
from glamlib.report.figures import show_image
from glamlib.runs import records
from glamlib.studies.study import Study


def cue_tile(scenes: CueScenes, index: int) -> np.ndarray:
    """Return where the cue's tile lies in scene ``index``, ``(H, W)`` bool, by its colour without noise."""
    clean = draw_scene(replace(scenes.config, noise=0), scenes.seed, index)
    return (clean.image == np.array(CUE_COLOURS[clean.cue - 1])[:, None, None]).all(axis=0)


def _pictures(study: Study, results: Path, variants: Iterable[str] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays beside the records of the first seed, by label, of the variants that have them."""
    runs = [record["parameters"] for record in records.comparable(results, study)[0]]
    kept = {run["variant"] for run in runs if run["seed"] == 0}
    found = {
        name: records.read_pictures(results, study.name, name) for name in variants or study.variants if name in kept
    }
    return {study.variants[name].label: arrays for name, arrays in found.items() if arrays}


def _grid(panels: dict[str, np.ndarray], **options: object) -> tuple[Figure, np.ndarray]:
    """Draw columns of pictures: ``panels`` maps a title to ``(n, H, W)`` or ``(n, 3, H, W)``."""
    (count, *_, height, width) = next(iter(panels.values())).shape
    size = (1.3 * len(panels), 1.3 * count * height / width + 0.9)
    figure, grid = plt.subplots(count, len(panels), figsize=size, squeeze=False)
    for column, (title, images) in zip(grid.T, panels.items(), strict=True):
        for i, (axes, image) in enumerate(zip(column, images, strict=True)):
            show_image(axes, image, textwrap.fill(title.replace("_", " "), 13) if i == 0 else "", **options)
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
    names = records.read_records(results, study.name)[0]["classes"]
    names = [*names, "void"] if first["labels"].max() >= len(names) else names
    handles = [Patch(facecolor=colours[i] / 255, edgecolor="black", linewidth=0.5) for i in range(len(names))]
    figure.legend(handles, names, ncols=6, loc="outside lower center", fontsize=8)
    return figure


def receptive_fields(study: Study, results: Path, variants: Iterable[str] | None = None) -> Figure:
    """Effective receptive field of the centre pixel, its largest value 1, on a log scale; zero is white."""
    pictures = {label: arrays for label, arrays in _pictures(study, results, variants).items() if "erf" in arrays}
    columns = min(len(pictures), 4)
    rows = -(-len(pictures) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(1.7 * columns + 0.9, 2.1 * rows), squeeze=False)
    for axes in grid.flat[len(pictures) :]:
        axes.axis("off")
    for axes, (label, arrays) in zip(grid.flat, pictures.items(), strict=False):
        field = arrays["erf"].astype(np.float32)
        field = np.where(field > 0, np.maximum(field, 1e-4), np.nan)  # where there is no influence it stays white
        show_image(axes, field, textwrap.fill(label, 16), norm=LogNorm(1e-4, 1), cmap="viridis")
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, shrink=0.8)
    bar.set_label("influence on the centre pixel\n(1: the largest; white: none)", fontsize=8)
    return figure


def slices(study: Study, results: Path, variants: Iterable[str] | None = None) -> Figure:
    """Slices of test volumes, the truth's outlines, and beside it those of each variant's prediction (first seed).

    Rows run from posterior to anterior and columns from left to right, so anterior is on top.
    """
    pictures = _pictures(study, results, variants)
    classes = records.read_records(results, study.name)[0]["classes"]
    palette, first = structure_colours(len(classes) - 1), next(iter(pictures.values()))
    labels = {"slice": np.zeros_like(first["labels"]), "truth": first["labels"]}
    labels |= {label: arrays["predictions"] for label, arrays in pictures.items()}
    figure, grid = _grid(dict.fromkeys(labels, first["images"]), cmap="gray", origin="lower")
    for column, planes in zip(grid.T, labels.values(), strict=True):
        for axes, plane in zip(column, planes, strict=True):
            draw_contours(axes, plane, palette)
    shown = sorted({int(number) for planes in labels.values() for number in np.unique(planes)} - {0, VOID})
    handles = [Line2D([], [], color=palette[number - 1], linewidth=2) for number in shown]
    names = [classes[number] for number in shown]
    columns = 3 if len(names) > 10 else min(len(labels), 5)
    figure.legend(handles, names, ncols=columns, loc="outside lower center", fontsize=8)
    return figure


def structure_colours(count: int) -> list[tuple[float, float, float]]:
    """Return a colour for each structure: colour-blind safe for up to ten."""
    return sns.color_palette("colorblind", count) if count <= 10 else sns.husl_palette(count, s=1, l=0.7)


def draw_contours(axes: Axes, labels: np.ndarray, palette: list[tuple[float, float, float]]) -> None:
    """Draw the outline of every structure of a label map ``(H, W)``, structure k in ``palette[k - 1]``."""
    axes.autoscale(False)  # the picture keeps its size
    rows, columns = (np.arange(-1, side + 1) for side in labels.shape)
    for number in np.unique(labels[(labels > 0) & (labels != VOID)]):
        inside = np.pad(labels == number, 1)  # a structure at the border would have no line there
        axes.contour(columns, rows, inside, [0.5], colors=[palette[number - 1]], linewidths=1.3)

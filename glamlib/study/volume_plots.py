"""Figures of volumes, in the look of `plots`."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .plots import bare
from .study import Study


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

"""What the notebooks' pictures share: one look, an image on axes in pixels, and where a scene's cue tile lies."""

from dataclasses import replace

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from glamlib.data.scenes import CUE_COLOURS, CueScenes, draw_scene


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

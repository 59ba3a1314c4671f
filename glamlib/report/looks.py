"""Where a pixel looks, drawn over the image: attention rollout and effective receptive field, models side by side."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2 import functional

from glamlib.data.images import read_image
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.evaluation.inference import view_size
from glamlib.evaluation.insight import attention_rollout, effective_receptive_field, finest_stage, stage_layout
from glamlib.models.encoder import Encoder
from glamlib.models.segmenter import EncoderDecoder
from glamlib.report.figures import save_picture, show_image
from glamlib.runs.saved_model import SavedModel
from glamlib.studies.parameters import InferenceOptions, RunParameters


def where_it_looks(
    models: Mapping[str, EncoderDecoder],
    image: Tensor,
    at: tuple[int, int],
    stage: int | None = None,
    receptive_field: bool = False,
    size: tuple[int, int] | None = None,
) -> Figure:
    """Draw the image, and over it, for each model, how much the pixel ``at`` = (row, column) draws on each patch.

    Weights are those of `attention_rollout` of one stage: unless given, the first one that `finest_stage` allows for
    every model. Where no path leads to the pixel, the image is bare. With ``receptive_field`` a second row shows the
    effective receptive field, through the decoder, too. ``image`` is uint8 ``(3, H, W)``, resized to ``size``.

    Raises InputError for a pixel outside the image, a stage that is not there, or a model without windows.
    """
    height, width = image.shape[1:]
    if not (0 <= at[0] < height and 0 <= at[1] < width):
        raise InputError(f"pixel {at[1]} {at[0]}: outside the image, which is {width} wide and {height} high")
    size, title = size or (height, width), f"the pixel x={at[1]}, y={at[0]}"  # as in the photo
    if size != (height, width):
        title += f"\n(photo resized to {size[1]} x {size[0]} px)"
        image = functional.resize(image, list(size), antialias=True)
        at = (at[0] * size[0] // height, at[1] * size[1] // width)
    if stage is None:
        stage = max(finest_stage(model.encoder, size) for model in models.values())
    rows = [[(*_rollout(model.encoder, image, at, stage), label) for label, model in models.items()]]
    if receptive_field:
        rows += [[(effective_receptive_field(model, image[None], at), 1, label) for label, model in models.items()]]
    shape = (3.2 * len(models) + 4.2, len(rows) * (0.4 + 3.2 * size[0] / size[1]))
    figure, grid = plt.subplots(len(rows), len(models) + 1, figsize=shape, squeeze=False, layout="constrained")
    frame, grey = (0, size[1], size[0], 0), image.float().mean(dim=0).numpy()
    for number, (axes, row) in enumerate(zip(grid, rows, strict=True)):
        show_image(axes[0], image.numpy(), title, extent=frame)
        for ax, (weights, stride, label) in zip(axes[1:], row, strict=True):
            show_image(ax, grey, label, cmap="gray", vmin=-255, vmax=255, extent=frame)  # light
            even = np.ma.masked_equal(weights * weights.size, 0)
            extent = (0, weights.shape[1] * stride, weights.shape[0] * stride, 0)  # with the padding to whole patches
            shown = ax.imshow(even, norm=LogNorm(0.01, 100), cmap="viridis", alpha=0.75, extent=extent)
        for ax in axes:
            ax.set(xlim=frame[:2], ylim=frame[2:])
            for marker in ({"color": "black", "markeredgewidth": 4}, {"color": "white", "markeredgewidth": 2}):
                ax.plot(at[1] + 0.5, at[0] + 0.5, "+", markersize=12, **marker)
        what = "effective receptive field" if number else f"attention rollout, patches of {stride} px"
        figure.colorbar(shown, ax=axes, extend="both").set_label(f"{what}\n1: as if even over the image", fontsize=8)
    return figure


def _rollout(encoder: Encoder, image: Tensor, at: tuple[int, int], stage: int) -> tuple[np.ndarray, int]:
    """Return the row of the pixel's patch as a map of patches, and their side in pixels."""
    height, width = stage_layout(encoder, image.shape[1:], stage).size
    stride = encoder.patch_embed.patch_size[0] * 2**stage
    query = at[0] // stride * width + at[1] // stride
    x = normalise(image[None].to(next(encoder.parameters()).device))
    return attention_rollout(encoder, x, stage, [query]).view(height, width).cpu().numpy(), stride


def write_look(
    models: Mapping[Path, tuple[SavedModel, RunParameters]],
    photo: Path,
    at: tuple[int, int],
    out: Path,
    stage: int | None,
    receptive_field: bool,
) -> None:
    """Write `where_it_looks` at the pixel ``at`` = (column, row) of a photo, a PNG; ``models`` by weights file.

    Unless ``stage`` is given, a large photo is made smaller until `finest_stage` allows the first for every model.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: must be a .png")
    image, labelled, size = read_image(photo), {}, None
    for file, (saved, run) in models.items():
        if saved.model.config.ndim != 2 or saved.model.in_channels != 3:
            raise InputError(f"{file}: {run.model} is not a model of RGB images")
        name = f"{file.stem}\n{run.model}"
        labelled[f"{file}\n{run.model}" if name in labelled else name] = saved.model
        options = InferenceOptions.from_dict(run.evaluate)
        size = size or view_size(*image.shape[1:], options, options.scales[0])
    encoders = [model.encoder for model in labelled.values()]
    if stage is None:
        smaller = (tuple(max(1, round(side * share / 20)) for side in size) for share in range(20, 0, -1))
        size = next((one for one in smaller if not any(finest_stage(encoder, one) for encoder in encoders)), size)
    save_picture(where_it_looks(labelled, image, at[::-1], stage, receptive_field, size), out)

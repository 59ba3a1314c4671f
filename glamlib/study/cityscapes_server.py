"""Cityscapes predictions as the benchmark's server takes them.

Its evaluation (``evalPixelLevelSemanticLabeling.py`` in github.com/mcordts/cityscapesScripts) wants one PNG an image,
named CITY_SEQUENCE_FRAME*.png, of the image's own size, whose values are raw ids, not classes; sub-folders do not
matter, but a second file of the same beginning does.
"""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from glamlib.data.cityscapes import CLASSES, RAW_IDS
from glamlib.errors import InputError

from .files import write_whole

_NAME = re.compile(r"([^_]+_\d{6}_\d{6})(_.*)?")


def raw_ids(prediction: Tensor | np.ndarray) -> np.ndarray:
    """Return classes 0..18, integers (H, W), as raw ids, uint8 (H, W); InputError for any other value or shape."""
    classes = np.asarray(prediction)
    if classes.ndim != 2 or classes.dtype.kind not in "iu":
        raise InputError(f"a prediction of shape {classes.shape} and {classes.dtype}; allowed: integers (H, W)")
    if classes.size and not 0 <= classes.min() <= classes.max() < len(CLASSES):
        raise InputError(
            f"a prediction with values {classes.min()}..{classes.max()}; allowed: the classes 0..{len(CLASSES) - 1}"
        )
    return np.array(RAW_IDS, np.uint8)[classes]


def server_name(name: str) -> str:
    """Return the file name that an image's prediction has on the server; InputError for another name than its own."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"image {name!r} has no Cityscapes name; allowed: CITY_SEQUENCE_FRAME, of six digits each")
    return f"{match[1]}_labelIds.png"


def write_for_server(folder: Path, name: str, prediction: Tensor | np.ndarray) -> Path:
    """Write a prediction as ``folder``/CITY_SEQUENCE_FRAME_labelIds.png and return that path.

    Args:
        folder: made where it is not there.
        name: the image's, as `Cityscapes.name` tells it, or any other that begins with CITY_SEQUENCE_FRAME.
        prediction: classes 0..18, integers (H, W), at the size of the image.

    Raises:
        InputError: another name, value or shape, or the file cannot be written.
    """
    path = folder / server_name(name)
    file = io.BytesIO()
    Image.fromarray(raw_ids(prediction)).save(file, "PNG")
    write_whole(path, file.getvalue())
    return path

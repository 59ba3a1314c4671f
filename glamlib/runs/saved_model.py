"""A trained model in one safetensors file: the weights, and in the metadata all it takes to build and use the model."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import nn

from glamlib.data.volumes import Preprocessing
from glamlib.errors import InputError
from glamlib.studies.parameters import RunParameters
from glamlib.training.checkpoint import UNREADABLE, load_weights, read_tensors, write_tensors
from glamlib.zoo import create_model

_KEY = "glamlib"


@dataclass(frozen=True)
class SavedModel:
    """What a weights file holds: the network, the run that trained it, and one name and (r, g, b) a class.

    ``preprocessing``: of volumes that lie in files.
    """

    model: nn.Module
    run: RunParameters
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    preprocessing: Preprocessing | None = None


def save_model(path: Path, saved: SavedModel) -> None:
    """Write a weights file atomically; InputError where that cannot be done."""
    about = {
        "parameters": saved.run.to_dict(),
        "in_channels": saved.model.in_channels,
        "classes": saved.classes,
        "palette": saved.palette,
        "preprocessing": saved.preprocessing and asdict(saved.preprocessing),
    }
    write_tensors(path, saved.model.state_dict(), _KEY, about)


def load_model(path: Path) -> SavedModel:
    """Return the model of a weights file, on the CPU, in evaluation mode; InputError for one that is bad or damaged.

    Nothing but tensors and JSON is read from the file.
    """
    try:
        weights, about = read_tensors(path, _KEY)
        run = RunParameters.from_dict(about["parameters"])
        classes, palette = tuple(about["classes"]), tuple(map(tuple, about["palette"]))
        in_channels = about["in_channels"]
        preprocessing = Preprocessing.from_dict(about["preprocessing"]) if about.get("preprocessing") else None
        if np.array(palette, np.uint8).shape != (len(classes), 3):
            raise ValueError("not one colour a class")
    except InputError as error:  # parameters that this version does not know
        raise InputError(f"{path}: {error}") from None
    except UNREADABLE as error:
        raise InputError(
            f"{path}: not a weights file that `glamlib train --weights` wrote ({type(error).__name__}: {error})"
        ) from None
    model = create_model(run.model, num_classes=len(classes), in_channels=in_channels, **run.overrides)
    load_weights(path, model, weights)
    return SavedModel(model.eval(), run, classes, palette, preprocessing)

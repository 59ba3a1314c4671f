"""A trained model in one safetensors file: the weights, and in the metadata all it takes to build and use the model."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.studies.parameters import RunParameters
from glamlib.training.checkpoint import load_weights
from glamlib.zoo import create_model

_KEY = "glamlib"


@dataclass(frozen=True)
class SavedModel:
    """What a weights file holds: the network, the run that trained it, and one name and (r, g, b) a class."""

    model: nn.Module
    run: RunParameters
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


def save_model(path: Path, saved: SavedModel) -> None:
    """Write a weights file atomically; InputError where that cannot be done."""
    about = {
        "parameters": saved.run.to_dict(),
        "in_channels": saved.model.in_channels,
        "classes": saved.classes,
        "palette": saved.palette,
    }
    # A copy each: safetensors refuses tensors that share memory
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in saved.model.state_dict().items()}
    write_whole(path, save(tensors, metadata={_KEY: json.dumps(about)}))


def load_model(path: Path) -> SavedModel:
    """Return the model of a weights file, on the CPU, in evaluation mode; InputError that names a bad file.

    Nothing but tensors and JSON is read from the file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()[_KEY])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
        run = RunParameters.from_dict(about["parameters"])
        classes, palette = tuple(about["classes"]), tuple(map(tuple, about["palette"]))
        in_channels = about["in_channels"]
        if np.array(palette, np.uint8).shape != (len(classes), 3):
            raise ValueError("not one colour a class")
    except InputError as error:  # parameters that this version does not know
        raise InputError(f"{path}: {error}") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a weights file that `glamlib train --weights` wrote ({type(error).__name__}: {error})"
        ) from None
    model = create_model(run.model, num_classes=len(classes), in_channels=in_channels, **run.overrides)
    load_weights(path, model, weights)
    return SavedModel(model.eval(), run, classes, palette)

"""glamlib: window attention with global tokens (GLAM), the networks around it, and the study of them."""

import glamlib.torchvision_schemas  # noqa: F401  (before anything imports timm)

# isort: split
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torch import nn

from glamlib.data.transforms import VOID, normalise
from glamlib.errors import InputError, check
from glamlib.models.config import ModelConfig
from glamlib.models.timm_tokens import add_global_tokens
from glamlib.zoo import create_model, list_models

__all__ = ["InputError", "ModelConfig", "add_global_tokens", "create_model", "list_models", "load_model", "normalise"]
__all__ += ["save_model"]


def load_model(weights_file: str | PathLike[str]) -> nn.Module:
    """Return a trained model on the CPU, in evaluation mode; InputError for a file that is bad or damaged.

    Its input is images as `normalise` gives them. ``model.classes`` are names in the order of the logits' channels, and
    ``model.inference`` says at which size images are predicted: an option of
    `glamlib.evaluation.inference.predict_classes`.
    """
    from glamlib.runs.saved_model import load_model as load  # needs the packages of the study
    from glamlib.studies.parameters import InferenceOptions

    saved = load(Path(weights_file))
    saved.model.classes, saved.model.inference = saved.classes, InferenceOptions.from_dict(saved.run.inference)
    return saved.model


def save_model(
    weights_file: str | PathLike[str], model: nn.Module, classes: Sequence[str], size: tuple[int, int] | None = None
) -> None:
    """Write a model of images that `create_model` made, for `load_model` and the commands predict, evaluate and look.

    Args:
        weights_file: safetensors, written atomically.
        classes: their names, in the order of the logits' channels.
        size: (height, width) in pixels that images were resized to, as others then will be; None: they were not.

    Raises:
        InputError: a model of another origin or of volumes, unfit names or size, a file that cannot be written.
    """
    from glamlib.data.layout import voc_palette
    from glamlib.runs.saved_model import SavedModel
    from glamlib.runs.saved_model import save_model as save
    from glamlib.studies.parameters import RunParameters, Sides

    name, overrides = getattr(model, "made_by", ("", {}))
    if not name or model.config.ndim != 2:
        raise InputError("save_model(weights_file, model, classes): model must be one of images that create_model made")
    if model.num_classes > VOID:
        raise InputError(f"save_model: {model.num_classes} classes: a label map holds at most {VOID}")
    if len(classes) != model.num_classes or not all(isinstance(name, str) for name in classes):
        raise InputError(f"save_model: classes {classes}: must be {model.num_classes} strings, a name for each class")
    data = {"train": "train", "test": "test"}
    if check("size", size, Sides | None):
        data["size"] = size
    about = {"study": "own", "variant": name, "seed": 0, "profile": "own", "model": name, "overrides": overrides}
    run = RunParameters(**about, dataset="folder", data=data, steps=1, batch_size=1, lr=0.0)
    save(Path(weights_file), SavedModel(model, run, tuple(classes), voc_palette(len(classes))))

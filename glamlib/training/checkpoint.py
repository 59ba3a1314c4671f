"""Checkpoints: one safetensors file with weights, optimiser state and progress, written atomically.

A run that is killed while it writes keeps its previous checkpoint, and never a mix of two.
"""

import json
from collections import defaultdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from glamlib.errors import InputError
from glamlib.files import write_whole

_NO_EFFECT = ("root", "workers", "checkpoint_every", "evaluate")
# They change the order of sums, and ``accumulate`` how much of a batch a batch normalisation sees; not the experiment.
_ROUNDING = ("threads", "device", "compile", "accumulate")


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, object]) -> None:
    """Write the state of a run. ``progress`` is what JSON can hold: step, history, seconds, made_by."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    # a copy each: safetensors refuses tensors that share memory
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    write_whole(path, save(tensors, metadata={"progress": json.dumps(progress)}))


def read_progress(path: Path) -> dict[str, object]:
    """Return the progress that a checkpoint holds; InputError that names the file if it is not one."""
    try:
        with safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
        if missing := {"step", "history", "loss", "seconds", "made_by"} - set(progress):
            raise KeyError(*missing)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not a checkpoint of this version ({reason}); move it away to start again") from None
    return progress


def changes(held: dict[str, object], made_by: dict[str, object]) -> tuple[list[str], list[str]]:
    """Return how a checkpoint's ``made_by`` differs from a run's: in what decides the result, and in the last digits.

    What changes nothing (see `_NO_EFFECT`) is left out.
    """
    decisive, rounding = [], []
    for name, value in json.loads(json.dumps(made_by)).items():
        if held.get(name) != value and name not in _NO_EFFECT:
            (rounding if name in _ROUNDING else decisive).append(f"{name} {held.get(name)} -> {value}")
    return decisive, rounding


def set_aside(path: Path) -> Path:
    """Rename a checkpoint, so that another can be written in its place, and return its new path."""
    number = 1
    while (kept := path.with_stem(f"{path.stem}-old-{number}")).exists():
        number += 1
    return path.rename(kept)


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's state into the model and the optimiser, and return its progress.

    Raises InputError if the file is not a checkpoint, or is one of another model.
    """
    progress = read_progress(path)
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in load_file(path).items():
        kind, _, name = key.partition("/")
        if kind == "model":
            weights[name] = value
        else:
            index, _, name = name.partition("/")
            state[int(index)][name] = value
    load_weights(path, model, weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def load_weights(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put ``weights``, read from ``path``, into the model; InputError, one line, where they are another model's."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: weights of another model: {reason[:300]}") from None

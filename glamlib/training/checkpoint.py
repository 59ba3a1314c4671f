"""Checkpoints: one safetensors file that holds weights, optimiser state, random state and history, whole or not at all.

One file and one rename: a run killed while it writes keeps its previous checkpoint, and never a mix of two.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from glamlib.errors import InputError
from glamlib.files import write_whole


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, object]) -> None:
    """Write the state of a run. ``progress`` is what JSON can hold: step, history, seconds, fingerprint."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    # A copy each: safetensors refuses tensors that share memory
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    write_whole(path, save(tensors, metadata={"progress": json.dumps(progress)}))


def read_progress(path: Path) -> dict[str, object]:
    """Return the progress that a checkpoint holds; InputError that names the file if it is not one."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["progress"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint of a run ({type(error).__name__})") from None


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, object]:
    """Put a checkpoint's state into the model and, if given, the optimiser and the random generators.

    Returns:
        Its progress.

    Raises:
        InputError: not a checkpoint, or one of another model (names the first keys that do not fit).
    """
    progress = read_progress(path)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    weights = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    check_fit(path, model, weights)
    model.load_state_dict(weights)
    if optimizer is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random/cpu"])
        if torch.cuda.is_available() and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"])
    return progress


def check_fit(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Raise InputError that names the first keys of ``weights`` that the model lacks, misses or shapes otherwise."""
    own = model.state_dict()
    unknown = [f"{key} (unknown)" for key in weights if key not in own]
    missing = [f"{key} (missing)" for key in own if key not in weights]
    shapes = [
        f"{key} ({list(weights[key].shape)}, the model has {list(own[key].shape)})"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    bad = shapes + missing + unknown
    if bad:
        raise InputError(
            f"{path}: a checkpoint of another model; {len(bad)} keys do not fit, first: {', '.join(bad[:3])}"
        )

"""Checkpoints: one safetensors file with weights, optimiser state and progress, written atomically.

A run that is killed while it writes keeps its previous checkpoint, and never a mix of two.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from glamlib.errors import InputError
from glamlib.files import write_whole

UNREADABLE = (SafetensorError, OSError, KeyError, TypeError, ValueError)
NO_EFFECT = ("root", "workers", "checkpoint_every")
# They change the order of sums, and ``accumulate`` how much of a batch a batch normalisation sees; not the experiment.
NO_MATTER = (*NO_EFFECT, "threads", "device", "compile", "accumulate")


def write_tensors(path: Path, tensors: dict[str, Tensor], name: str, about: dict[str, object]) -> None:
    """Write tensors and, as metadata ``name``, what JSON can hold, with a digest of both."""
    # copies: safetensors refuses tensors that share memory
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    # one entry, because those of a file have no order of their own
    about = {"sha256": _digest(tensors, about), "about": about}
    write_whole(path, save(tensors, metadata={name: json.dumps(about)}))


def read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return what `write_tensors` wrote; an error of `UNREADABLE` where it is something else, or a bit has changed."""
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()[name])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    if _digest(tensors, held["about"]) != held["sha256"]:
        raise ValueError("the checksum is wrong: the file has changed since it was written")
    return tensors, held["about"]


def _digest(tensors: dict[str, Tensor], about: dict[str, object]) -> str:
    return hashlib.sha256(save(tensors, metadata={"about": json.dumps(about)})).hexdigest()


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, object]) -> None:
    """Write the state of a run. ``progress`` is what JSON can hold: step, history, seconds, made_by."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    write_tensors(path, tensors, "progress", progress)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Return the tensors and the progress that a checkpoint holds; InputError that names the file if it is not one."""
    try:
        tensors, progress = read_tensors(path, "progress")
        if missing := {"step", "history", "loss", "seconds", "made_by"} - set(progress):
            raise KeyError(*missing)
    except UNREADABLE as error:
        what = f"not a checkpoint of this version ({type(error).__name__}: {error})"
        raise InputError(f"{path}: {what}; move it away to start again") from None
    return tensors, progress


def changes(held: dict[str, object], now: dict[str, object], but: Iterable[str] = NO_MATTER) -> list[str]:
    """Return how what made a checkpoint or record differs from what would make it now, "steps 12 -> 1" each."""
    now = json.loads(json.dumps(now))
    names = [name for name in held | now if name not in but and held.get(name) != now.get(name)]
    return [f"{name} {held.get(name)} -> {now.get(name)}" for name in names]


def set_aside(path: Path, *beside: Path) -> Path:
    """Rename a file to NAME-old-NUMBER, so that another can take its place, and return its new path.

    Those ``beside`` it, where they exist, go first and get the same number, which no old file of the folder has.
    """
    number = next(number for number in count(1) if not any(path.parent.glob(f"*-old-{number}.*")))
    *_, kept = [file.rename(file.with_stem(f"{file.stem}-old-{number}")) for file in (*beside, path) if file.exists()]
    return kept


def restore(path: Path, tensors: dict[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    """Put the tensors of the checkpoint ``path`` into model and optimiser; InputError if they are another model's."""
    weights, state = {}, defaultdict(dict)
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        if kind == "model":
            weights[name] = value
        else:
            index, name = name.split("/")
            state[int(index)][name] = value
    load_weights(path, model, weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_weights(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put ``weights``, read from ``path``, into the model; InputError, one line, where they are another model's."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: weights of another model: {' '.join(str(error).split())[:300]}") from None

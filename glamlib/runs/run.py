"""One run, from its parameters to its record: `run_one` at once, notebook 14 step by step."""

import math
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glamlib.cost.count import cost
from glamlib.errors import InputError
from glamlib.evaluation.cues import steps_to_criterion
from glamlib.evaluation.evaluate import is_main
from glamlib.evaluation.insight import effective_receptive_field
from glamlib.evaluation.metrics import location_prior
from glamlib.files import check_writable, write_whole
from glamlib.runs.places import CHECKPOINT, computing_digest, imagenet_file, run_folder
from glamlib.runs.records import open_run_folder, put_aside, to_do, write_record
from glamlib.runs.saved_model import SavedModel, load_model, save_model
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import GENERATED, AnyDataset, Parts, data_identity, run_parts
from glamlib.training.loop import train
from glamlib.training.tasks import task_of
from glamlib.zoo import create_model


def build_model(run: RunParameters, dataset: AnyDataset) -> nn.Module:
    """Return the untrained model of a run, for its data's channels and classes, drawn from the state of its seed."""
    channels = dataset[0][0].shape[0]
    pretrained = (imagenet_file(run.model) or True) if run.pretrained == "imagenet" else (run.pretrained or False)
    torch.manual_seed(run.seed)
    return create_model(
        run.model, num_classes=len(dataset.classes), in_channels=channels, pretrained=pretrained, **run.overrides
    )


def identity_of(run: RunParameters, data: Parts) -> dict[str, object]:
    """Return what identifies a run in its record: parameters, data (drawn training data are in these) and code."""
    told = {part: data_identity(data[part]) for part in data if part != "train" or run.dataset not in GENERATED}
    return {"parameters": run.to_dict(), "data": told, "code": computing_digest()}


class Job:
    """A run at work, from its checkpoint on if there is one: `train`, `evaluate`, `write`, in this order.

    Args:
        run: its parameters.
        results: the folder that the run's own is made in.
        weights: a file to save the model in, too.
        data: what `run_parts` returns, if it is there already.

    A run that validates keeps its best weights beside its record, in best.safetensors; it and one on own data also keep
    the last ones, in last.safetensors. The best are tested.

    Raises InputError for data, a model, a device or a place to write that cannot be used.
    """

    def __init__(
        self, run: RunParameters, results: Path, weights: Path | None = None, data: Parts | None = None
    ) -> None:
        self.run, self.weights = run, weights
        self.folder = open_run_folder(results, run)
        if weights is not None and is_main():
            check_writable(weights)
        self.data = data or run_parts(run)
        self.identity = identity_of(run, self.data)
        self.task = task_of(run)
        self.model = build_model(run, self.data["train"])
        self.cost = cost(self.model, **self.task.input_size(self.data["test"], run))

    def train(self) -> None:
        """Set ``history`` and ``seconds``; the model is then the one to test."""
        validates, best = self.run.validate_every > 0, self.folder / "best.safetensors"
        self.history, self.seconds = train(
            self.model,
            self.data["train"],
            self.run,
            self.folder / CHECKPOINT,
            code=self.identity["code"],
            validation=self.data.get("val"),
            on_best=partial(self._save, best),
        )
        if self.run.root or validates:
            self._save(self.folder / "last.safetensors")
        if validates:
            self.model.load_state_dict(load_model(best).model.state_dict())
        if self.weights is not None:
            self._save(self.weights)

    def _save(self, path: Path) -> None:
        if is_main():
            # not before: a run that cannot start leaves the old record in place
            put_aside(self.folder, self.identity, always=path.parent == self.folder)
            data = self.data["train"]
            own = {name: getattr(data, name) for name in ("preprocessing", "channels") if hasattr(data, name)}
            own["trained_on"] = data.places(self.run.root) if self.run.root else ()
            save_model(path, SavedModel(self.model, self.run, data.classes, data.palette, **own))

    def evaluate(self) -> None:
        """Set ``metrics``, and ``pictures`` of the first seed."""
        self.metrics, self.pictures = self.task.evaluate(self.model, self.data["test"], self.run)
        if self.pictures and self.task.ndim == 2:
            with suppress(InputError):  # a record goes without where memory does not suffice
                erf = effective_receptive_field(self.model, torch.from_numpy(self.pictures["images"]))
                self.pictures["erf"] = (erf / erf.max()).astype(np.float16)
        if self.run.stop_at:
            last = self.history[-1]
            met = last[f"val_{self.task.score_name(self.run)}"] >= self.run.stop_at
            self.metrics["steps_to_criterion"] = last["step"] if met else math.nan
        elif "guessing_loss" in self.metrics and self.task.ndim == 2 and self.run.loss == "cross_entropy":
            self.metrics["steps_to_criterion"] = steps_to_criterion(self.history, self.metrics["guessing_loss"] / 2)
        if self.run.dataset not in GENERATED:
            self.metrics["prior"] = location_prior(self.data["train"], self.data["test"])

    def write(self) -> Path:
        """Write the record, and return its path: the run counts as done, and its checkpoint goes."""
        return write_record(
            self.folder,
            self.run,
            metrics=self.metrics,
            classes=self.data["train"].classes,
            cost=self.cost,
            history=self.history,
            train_seconds=self.seconds,
            arrays=self.pictures,
            data=self.identity["data"],
        )


def run_one(run: RunParameters, results: Path, weights: Path | None = None, data: Parts | None = None) -> Path:
    """Do a whole `Job` and return its record's path; of a finished run only copy the weights, where it has them."""
    record = run_folder(results, run) / "record.json"
    kept = record.with_name("best.safetensors" if run.validate_every else "last.safetensors")
    if record.exists() and (weights is None or kept.exists()):
        data = data or run_parts(run)
        if not to_do(record.parent, identity_of(run, data)):
            if weights is not None and is_main():
                write_whole(weights, kept.read_bytes())
            print(f"{run.variant}/seed-{run.seed} is finished already", flush=True)
            return record
    job = Job(run, results, weights, data)
    job.train()
    job.evaluate()
    return job.write()

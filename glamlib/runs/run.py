"""One run of a study, from its parameters to its record: what notebook 04 does cell by cell."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from glamlib.cost.count import cost
from glamlib.evaluation.processes import is_main
from glamlib.runs.places import checkpoint_file, imagenet_file
from glamlib.runs.provenance import computing_digest
from glamlib.runs.records import open_run_folder, write_record
from glamlib.runs.saved_model import SavedModel, save_model
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import AnyDataset, run_datasets
from glamlib.training.loop import train
from glamlib.training.tasks import task_of
from glamlib.zoo import create_model


def build_model(run: RunParameters, dataset: AnyDataset) -> nn.Module:
    """Return the untrained model of a run, for the channels and classes of its data.

    The seed is set just before, so that variants that share a seed draw from the same state.
    """
    channels = dataset[0][0].shape[0]
    torch.manual_seed(run.seed)
    return create_model(
        run.model,
        num_classes=len(dataset.classes),
        in_channels=channels,
        pretrained=_initial_weights(run),
        **run.overrides,
    )


def _initial_weights(run: RunParameters) -> bool | str | Path:
    """Return what `glamlib.create_model` takes as ``pretrained``."""
    if run.pretrained == "imagenet":
        return imagenet_file(run.model) or True
    return run.pretrained or False


def run_one(
    run: RunParameters,
    results: Path,
    weights: Path | None = None,
    *,
    datasets: Callable[[RunParameters], tuple[AnyDataset, AnyDataset]] = run_datasets,
    on_step: Callable[[int], object] | None = None,
) -> Path:
    """Train, evaluate and write the record below ``results``; go on from the run's checkpoint if there is one.

    Of a run on a GPU the record also tells how fast it trained, by the device's own measure (`training_speed`).

    Args:
        run: everything that decides what is computed.
        results: the folder that gets ``runs/STUDY/VARIANT/seed-K``.
        weights: also keep the trained weights in this file (safetensors, see `SavedModel`).
        datasets: gives the run its data.
        on_step: see `train`.

    Returns:
        The record's path.

    Raises:
        InputError: data, model, device or a place to write that cannot be used.
        FloatingPointError: the loss is no longer finite.
    """
    folder = open_run_folder(results, run)
    train_data, test_data = datasets(run)
    model = build_model(run, train_data)
    task = task_of(run)
    # a machine lent for its GPU may lack fvcore; the two agree
    price = cost(model, **task.input_size(test_data, run), counter="fvcore" if find_spec("fvcore") else "torch")
    history, seconds = train(model, train_data, run, checkpoint_file(run), on_step=on_step, code=computing_digest())
    metrics, pictures = task.evaluate(model, test_data, run)
    if weights is not None and is_main():
        save_model(weights, SavedModel(model, run, train_data.classes, train_data.palette))
    record = write_record(
        folder,
        run,
        metrics=metrics,
        classes=train_data.classes,
        cost=price,
        history=history,
        train_seconds=seconds,
        arrays=pictures,
    )
    if is_main():
        checkpoint_file(run).unlink()
    return record

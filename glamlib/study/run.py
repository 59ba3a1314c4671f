"""One run of a study, from its parameters to its record: what notebook 04 does cell by cell."""

from pathlib import Path

import torch
from torch import nn

from glamlib.models.zoo import create_model

from .cost import cost
from .datasets import AnyDataset, run_datasets
from .parameters import RunParameters
from .places import checkpoint_file
from .processes import is_main
from .records import open_run_folder, write_record
from .saved_model import SavedModel, save_model
from .tasks import task_of
from .training import train


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
        pretrained=run.initial_weights,
        **run.overrides,
    )


def run_one(run: RunParameters, results: Path, weights: Path | None = None) -> Path:
    """Train, evaluate and write the record below ``results``; go on from the run's checkpoint if there is one.

    Args:
        run: everything that decides what is computed.
        results: the folder that gets ``runs/STUDY/VARIANT/seed-K``.
        weights: also keep the trained weights in this file (safetensors, see `SavedModel`).

    Returns:
        The record's path.

    Raises:
        InputError: data, model, device or a place to write that cannot be used.
        FloatingPointError: the loss is no longer finite.
    """
    folder = open_run_folder(results, run)
    train_data, test_data = run_datasets(run)
    model = build_model(run, train_data)
    task = task_of(run)
    price = cost(model, **task.input_size(test_data, run), counter="fvcore")
    history, seconds = train(model, train_data, run, checkpoint_file(run))
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

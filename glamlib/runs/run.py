"""One run of a study, from its parameters to its record: what notebook 04 does cell by cell."""

from pathlib import Path

import torch
from torch import nn

from glamlib.cost.count import cost
from glamlib.evaluation.processes import is_main
from glamlib.files import check_writable
from glamlib.runs.places import checkpoint_file, imagenet_file
from glamlib.runs.provenance import computing_digest
from glamlib.runs.records import open_run_folder, write_record
from glamlib.runs.saved_model import SavedModel, save_model
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import GENERATED, AnyDataset, data_identity, run_datasets
from glamlib.training.loop import train
from glamlib.training.tasks import task_of
from glamlib.zoo import create_model


def build_model(run: RunParameters, dataset: AnyDataset) -> nn.Module:
    """Return the untrained model of a run, for the channels and classes of its data.

    The seed is set just before, so that variants that share a seed draw from the same state.
    """
    channels = dataset[0][0].shape[0]
    pretrained = (imagenet_file(run.model) or True) if run.pretrained == "imagenet" else (run.pretrained or False)
    torch.manual_seed(run.seed)
    return create_model(
        run.model, num_classes=len(dataset.classes), in_channels=channels, pretrained=pretrained, **run.overrides
    )


def data_of(run: RunParameters, train_data: AnyDataset, test_data: AnyDataset) -> dict[str, object]:
    """Return what identifies the data of a run in its record; drawn training data are told by the parameters."""
    test = {"test": data_identity(test_data)}
    return test if run.dataset in GENERATED else test | {"train": data_identity(train_data)}


def run_one(run: RunParameters, results: Path, weights: Path | None = None) -> Path:
    """Train, evaluate and write the record below ``results``, from the run's checkpoint on if there is one.

    Returns the record's path; ``weights`` is a file to save the trained model in, too. Raises InputError for data, a
    model, a device or a place to write that cannot be used, FloatingPointError when the loss is no longer finite.
    """
    folder = open_run_folder(results, run)
    if weights is not None and is_main():
        check_writable(weights)
    train_data, test_data = run_datasets(run)
    model = build_model(run, train_data)
    task = task_of(run)
    costs = cost(model, **task.input_size(test_data, run))
    history, seconds = train(model, train_data, run, checkpoint_file(results, run), code=computing_digest())
    metrics, pictures = task.evaluate(model, test_data, run)
    if weights is not None and is_main():
        save_model(weights, SavedModel(model, run, train_data.classes, train_data.palette))
    return write_record(
        folder,
        run,
        metrics=metrics,
        classes=train_data.classes,
        cost=costs,
        history=history,
        train_seconds=seconds,
        arrays=pictures,
        data=data_of(run, train_data, test_data),
    )

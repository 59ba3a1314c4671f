"""One run of a study, from its parameters to its record: what notebook 04 does cell by cell."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from glamlib.models.zoo import create_model

from .cost import cost
from .datasets import AnyDataset, run_datasets
from .pace import Pace
from .parameters import RunParameters
from .places import checkpoint_file, imagenet_file
from .processes import is_main
from .records import open_run_folder, write_record
from .saved_model import SavedModel, save_model
from .tasks import task_of
from .throughput import training_speed
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
        Paused: ``on_step`` stopped it; there is no record yet.
    """
    folder = open_run_folder(results, run)
    train_data, test_data = datasets(run)
    model = build_model(run, train_data)
    task = task_of(run)
    # a machine lent for its GPU may lack fvcore; the two agree
    price = cost(model, **task.input_size(test_data, run), counter="fvcore" if find_spec("fvcore") else "torch")
    pace = Pace()

    def watch(step: int) -> bool:
        pace(step)
        return on_step is not None and bool(on_step(step))

    history, seconds = train(model, train_data, run, checkpoint_file(run), watch)
    speed = training_speed(model, train_data, run, pace.seconds_a_step)
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
        speed=speed,
    )
    if is_main():
        checkpoint_file(run).unlink()
    return record

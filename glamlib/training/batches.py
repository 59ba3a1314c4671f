"""Splitting a step's batch over processes and turns, so that its gradients stay those of the whole batch."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from glamlib.errors import InputError
from glamlib.studies.parameters import RunParameters
from glamlib.training.tasks import task_of


def synchronise_norms(model: nn.Module, device: torch.device, processes: int) -> None:
    """Let batch normalisation see the batch of all processes, on GPUs; torch has no such layer for the CPU.

    Weights and their names stay. On the CPU each process normalises with its own part's statistics.
    """
    if processes > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


def shares_of(accelerator: Accelerator, labels: list[Tensor], ignore_index: int) -> list[float]:
    """Return the weight of each turn's mean loss, so that the sum over turns is, averaged over processes as gradients
    are, the mean over the valid pixels of the whole batch; 1.0 for one turn of one process."""
    if len(labels) == accelerator.num_processes == 1:
        return [1.0]
    valid = [int((label != ignore_index).sum()) for label in labels]
    total = accelerator.reduce(torch.tensor(sum(valid), device=accelerator.device), "sum").item()
    # nothing valid anywhere: the loss is NaN, as it is for one process
    return [count * accelerator.num_processes / total if total else 1.0 for count in valid]


def weighted(loss: Tensor, share: float, outputs: tuple) -> Tensor:
    """Return ``share * loss``; of a part without valid pixels, whose mean is NaN and share 0, a loss of 0 instead."""
    if share:
        return share * loss
    return sum(0.0 * output.float().mean() for output in outputs if output is not None)


def check_split(run: RunParameters, processes: int) -> None:
    """Raise InputError where a step's batch cannot be split over the processes and ``run.accumulate`` turns."""
    parts = processes * run.accumulate
    if run.batch_size % parts:
        raise InputError(
            f"parameter batch_size={run.batch_size}: must be a multiple of {parts} "
            f"({processes} processes, accumulate={run.accumulate})"
        )
    if parts > 1 and not task_of(run).divisible:
        raise InputError(
            f"{processes} processes, accumulate={run.accumulate}: {run.dataset} trains in one process and at once "
            "(accumulate=1), because its Dice loss is of the whole batch"
        )

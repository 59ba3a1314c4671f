"""What a step of training sees: drawn from (seed, step) alone, so that a run resumes exactly."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from glamlib.errors import InputError
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import AnyDataset
from glamlib.training.tasks import Transform, task_of


class TrainingView(Dataset):
    """A data set by position in the whole run: every epoch has an order of its own.

    ``[p]`` is the (image, label) at position p, augmented by a generator that depends on (seed, p) alone.
    """

    def __init__(self, dataset: AnyDataset, seed: int, transform: Transform | None) -> None:
        self.dataset, self.seed, self.transform = dataset, seed, transform
        self._orders: dict[int, np.ndarray] = {}  # of the epoch

    def item(self, position: int) -> int:
        """Return which item of the data set is at a position."""
        epoch, place = divmod(position, len(self.dataset))
        if epoch not in self._orders:
            self._orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))}
        return int(self._orders[epoch][place])

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, label = self.dataset[self.item(position)]
        if self.transform is None:
            return image, label
        # the third word keeps this stream apart from the orders'
        return self.transform(image, label, np.random.default_rng([self.seed, position, 1]))


def step_batches(run: RunParameters, start: int, rank: int = 0, processes: int = 1) -> list[range]:
    """Return the positions of each micro-batch of process ``rank`` from step ``start``, a loader's ``batch_sampler``.

    A step's batch is split evenly over ``processes``, and each process's part into ``run.accumulate`` micro-batches.
    Raises InputError where the batch cannot be split so.
    """
    parts, how = processes * run.accumulate, f"{processes} processes, accumulate={run.accumulate}"
    if run.batch_size % parts:
        raise InputError(f"parameter batch_size={run.batch_size}: must be a multiple of {parts} ({how})")
    if parts > 1 and not task_of(run).divisible:
        raise InputError(f"{how}: {run.dataset} trains in one process, accumulate=1: its loss is of the whole batch")
    size = run.batch_size // parts
    return [
        range(part * size, (part + 1) * size)
        for step in range(start, run.steps)
        for part in range((step * processes + rank) * run.accumulate, (step * processes + rank + 1) * run.accumulate)
    ]

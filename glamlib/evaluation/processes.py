"""The processes of one run, as torchrun or accelerate launch starts them: who does what, and sums over all of them.

Without a launcher there is one process, which does everything.
"""

import os

import numpy as np
from torch import distributed


def is_main() -> bool:
    """Tell whether this is the process that writes files: that of rank 0, known before any communication."""
    return int(os.environ.get("RANK", 0)) == 0


def part_of_batch(batch_size: int, turns: int) -> int:
    """Return how many of a step's ``batch_size`` items a process takes at once in ``turns`` turns; at least 1."""
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    return max(1, batch_size // (processes * turns))


def own_share(count: int) -> range:
    """Return which of ``count`` items are this process's; every item is one process's, and no more than one's."""
    if not distributed.is_initialized():
        return range(count)
    return range(distributed.get_rank(), count, distributed.get_world_size())


def gathered(value: object) -> list[object]:
    """Return every process's ``value``, in order of rank, to all; small ones, of plain Python and numpy."""
    if not distributed.is_initialized():
        return [value]
    values: list[object] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def summed(counts: np.ndarray) -> np.ndarray:
    """Return the sum of every process's array of integers."""
    return np.sum(gathered(counts), axis=0, dtype=counts.dtype)

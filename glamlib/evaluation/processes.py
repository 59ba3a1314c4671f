"""The processes of one run, as torchrun or accelerate launch starts them; without a launcher there is one."""

import os

from torch import distributed


def is_main() -> bool:
    """Return whether this is the process that writes files: that of rank 0, known before any communication."""
    return int(os.environ.get("RANK", 0)) == 0


def process_count() -> int:
    """Return how many processes the run has."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_share(count: int) -> range:
    """Return which of ``count`` items are this process's; every item belongs to exactly one process."""
    return range(distributed.get_rank() if distributed.is_initialized() else 0, count, process_count())


def gathered(value: object) -> list[object]:
    """Return every process's ``value``, in order of rank, to all; small ones, of plain Python and numpy."""
    values = [value] * process_count()
    if distributed.is_initialized():
        distributed.all_gather_object(values, value)
    return values

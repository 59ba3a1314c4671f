"""Drawing or decoding all items of a data set, by several processes where there are some."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_CHUNK = 32  # items a task

_dataset: "Items | None" = None  # of a worker process


class Items(Protocol):
    """What items are taken from."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


def all_items(dataset: Items, count: int, workers: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return the first ``count`` items, in order; the same with any number of ``workers``.

    They come back as arrays: of tensors, each would hold a file open.
    """
    if not workers or count < 2 * _CHUNK:
        return [dataset[index] for index in range(count)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _hold, (dataset,)) as pool:
        arrays = pool.map(_arrays, range(count), chunksize=_CHUNK)
        return [(torch.from_numpy(image), torch.from_numpy(label)) for image, label in arrays]


def _hold(dataset: Items) -> None:
    global _dataset  # one data set a worker, which a fork hands over without a copy
    _dataset = dataset


def _arrays(index: int) -> tuple[np.ndarray, np.ndarray]:
    image, label = _dataset[index]
    return image.numpy(), label.numpy()

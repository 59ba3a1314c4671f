"""Training data that no augmentation changes, held on the device: a GPU needs no loader for them."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glamlib.data.registry import InMemory

if TYPE_CHECKING:
    from .training import TrainingView


def can_be_resident(view: "TrainingView", device: torch.device) -> bool:
    """Tell whether `resident_batches` serves a view: data in memory, nothing drawn anew, and a GPU to hold them."""
    return device.type == "cuda" and view.transform is None and isinstance(view.dataset, InMemory)


def resident_batches(
    view: "TrainingView", parts: Iterable[list[int]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images ``(B, C, *size)`` and labels ``(B, *size)`` of each list of positions, on ``device``.

    The same batches as a loader's, of data that are copied to the device once, as they are (uint8).
    """
    items = [view.dataset[index] for index in range(len(view.dataset))]
    images, labels = (torch.stack(tensors).to(device) for tensors in zip(*items, strict=True))
    for positions in parts:
        chosen = torch.tensor([view.item(position) for position in positions], device=device)
        yield images[chosen], labels[chosen]

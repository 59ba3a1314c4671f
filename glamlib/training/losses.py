"""What training minimises: cross-entropy, and for volumes the soft Dice loss beside it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from glamlib.data.datasets import SegmentationDataset


def balanced_weights(dataset: SegmentationDataset) -> Tensor:
    """Return a loss weight for each class, ``(K,)``: the median of the classes' frequencies over the class's own.

    A class's frequency is its share of the labelled pixels in the images that hold it. A class that no label holds has
    weight 1, and no part in the median. All labels are read. Source: median frequency balancing, Eigen and Fergus,
    "Predicting Depth, Surface Normals and Semantic Labels" (ICCV 2015).
    """
    classes = len(dataset.classes)
    labels = (dataset[index][1] for index in range(len(dataset)))
    counts = torch.stack([label.flatten().bincount(minlength=classes)[:classes] for label in labels]).double()  # (n, K)
    held_in = ((counts > 0) * counts.sum(1, keepdim=True)).sum(0)
    frequencies = counts.sum(0) / held_in  # NaN where no label holds the class
    return (frequencies.nanquantile(0.5) / frequencies).nan_to_num(1).float()


def total_weight(labels: Tensor, ignore_index: int, weights: Tensor | None = None) -> Tensor:
    """Return how many pixels are not ignored, or the sum of their classes' ``weights``."""
    known = labels != ignore_index
    return known.sum() if weights is None else weights[labels[known].long()].sum()


def cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int, count: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return the mean over the pixels that are not ignored; logits ``(B, K, *size)``, integer labels ``(B, *size)``.

    The sum, with class ``weights`` ``(K,)`` if given, is divided by ``count`` (by default `total_weight`), at least 1.
    """
    if count is None:
        count = total_weight(labels, ignore_index, weights).clamp(min=1)
    return F.cross_entropy(logits.float(), labels.long(), weights, ignore_index=ignore_index, reduction="sum") / count


def soft_dice_loss(logits: Tensor, labels: Tensor, ignore_index: int, smooth: float = 1e-5) -> Tensor:
    """Return 1 - Dice of the softmax, over the whole batch at once, mean over the classes but the background (0).

    Milletari et al., "V-Net" (2016), in nnU-Net's form (batch Dice, no background), as the released 3D recipe has it.
    Ignored voxels are left out. Shapes as in `cross_entropy`.
    """
    known = labels != ignore_index  # (B, *size)
    truth = F.one_hot(labels.long().where(known, 0), logits.shape[1]).movedim(-1, 1)[:, 1:]  # (B, K - 1, *size)
    guess = logits.float().softmax(dim=1)[:, 1:] * known[:, None]
    truth = truth * known[:, None]
    over = [0, *range(2, logits.ndim)]
    overlap = (guess * truth).sum(over)
    return 1 - ((2 * overlap + smooth) / (guess.sum(over) + truth.sum(over) + smooth)).mean()


def deeply_supervised(
    outputs: list[Tensor], labels: Tensor, ignore_index: int, weights: Tensor | None = None
) -> Tensor:
    """Return the Dice loss and cross-entropy of logits at falling resolutions, each with half the weight before it.

    The weights add up to 1, as in nnU-Net. Labels ``(B, *size)`` are taken at the centre of each coarse voxel (nearest
    neighbour), where the released code averages one-hot labels. Class ``weights`` are for the cross-entropy alone.
    """
    total = 0.0
    for level, logits in enumerate(outputs):
        coarse = F.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0].to(labels)
        loss = soft_dice_loss(logits, coarse, ignore_index) + cross_entropy(logits, coarse, ignore_index, None, weights)
        total = total + 0.5**level * loss
    return total / sum(0.5**level for level in range(len(outputs)))

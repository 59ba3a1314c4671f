"""What training minimises: cross-entropy, and for volumes the soft Dice loss beside it."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int, count: Tensor | None = None) -> Tensor:
    """Return the mean over the pixels that are not ignored; logits ``(B, K, *size)``, integer labels ``(B, *size)``.

    The sum is divided by ``count``, by default the number of pixels in ``labels`` that are not ignored, at least 1.
    """
    if count is None:
        count = (labels != ignore_index).sum().clamp(min=1)
    return F.cross_entropy(logits.float(), labels.long(), ignore_index=ignore_index, reduction="sum") / count


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


def dice_and_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the sum of the two; shapes as in `cross_entropy`."""
    return soft_dice_loss(logits, labels, ignore_index) + cross_entropy(logits, labels, ignore_index)


def deeply_supervised(outputs: list[Tensor], labels: Tensor, ignore_index: int) -> Tensor:
    """Return the loss of logits at falling resolutions, highest first, each of half the weight of the one before.

    The weights add up to 1, as in nnU-Net. Labels ``(B, *size)`` are taken at the centre of each coarse voxel (nearest
    neighbour), where the released code averages one-hot labels.
    """
    weights = [0.5**level for level in range(len(outputs))]
    total = 0.0
    for weight, logits in zip(weights, outputs, strict=True):
        coarse = F.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0].to(labels)
        total = total + weight / sum(weights) * dice_and_cross_entropy(logits, coarse, ignore_index)
    return total

"""Segmentation metrics from one accumulated confusion matrix.

Averaging a score over batches is not the data set's score; one matrix over all pixels is. A class that occurs neither
in the truth nor in the prediction has no IoU: NaN, left out of the mean.


MERGED: Dice and HD95 of volumes, structure by structure and case by case.

The rule: a structure that is neither in the truth nor in the prediction has no Dice (undefined, left out of means); one
that is only predicted, or only true, has Dice 0. HD95, the 95th percentile of the distances between the two surfaces
in mm, exists only where both have the structure. Undefined cases are counted.

Many papers on Synapse score with another rule (TransUNet's evaluation): Dice 1 and HD95 0 where a structure is
predicted and not there, Dice 0 and HD95 0 where it is there and missed, or in neither. It is given beside ours.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from glamlib.errors import InputError
from glamlib.evaluation.surface_distance import hausdorff_distance


class ConfusionMatrix:
    """Counts of pixels by true class (rows) and predicted class (columns); ``ignore_index`` pixels are left out."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add the pixels of integer tensors of one shape. InputError for a label outside the classes."""
        valid = label != self.ignore_index
        truth, guess = label[valid].long(), prediction[valid].long()
        if truth.numel() and not 0 <= int(truth.min()) <= int(truth.max()) < self.num_classes:
            raise InputError(
                f"label value {int(truth.max())}: "
                f"allowed are 0 to {self.num_classes - 1} and {self.ignore_index} (ignored)"
            )
        counts = torch.bincount(truth * self.num_classes + guess, minlength=self.num_classes**2)
        self.counts += counts.view(self.num_classes, self.num_classes).cpu().numpy()

    def metrics(self) -> dict[str, object]:
        """Return miou, iou (one a class, NaN where absent), pixel_accuracy and mean_accuracy, all in 0..1."""
        hits = np.diag(self.counts).astype(np.float64)
        truth, guess = self.counts.sum(axis=1), self.counts.sum(axis=0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the absent class's NaN
            iou = hits / (truth + guess - hits)
            recall = hits / truth
            pixel_accuracy = hits.sum() / truth.sum()
        return {
            "miou": _mean(iou),
            "iou": iou.tolist(),
            "pixel_accuracy": float(pixel_accuracy),
            "mean_accuracy": _mean(recall),
        }


def _mean(values: np.ndarray) -> float:
    """Return the mean of what is not NaN; NaN if nothing is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


@dataclass
class VolumeScores:
    """Scores of one structure a column, one case a row; gathered by `update`, summed up by `metrics`.

    ``device`` is where distances are computed.
    """

    classes: tuple[str, ...]
    device: torch.device | str = "cpu"
    names: list[str] = field(default_factory=list)
    dice: list[np.ndarray] = field(default_factory=list)
    hd95: list[np.ndarray] = field(default_factory=list)
    only_predicted: list[np.ndarray] = field(default_factory=list)

    def update(self, name: str, prediction: Tensor, label: Tensor, spacing: tuple[float, float, float]) -> None:
        """Add a case: integer ``(D, H, W)`` tensors and the sides of a voxel in mm."""
        prediction, label = prediction.to(self.device), label.to(self.device)
        dice, hd95, only_predicted = [], [], []
        for number in range(1, len(self.classes)):
            guess, truth = prediction == number, label == number
            sizes = [int(mask.sum()) for mask in (guess, truth, guess & truth)]
            dice.append(2 * sizes[2] / (sizes[0] + sizes[1]) if sizes[0] + sizes[1] else np.nan)
            hd95.append(hausdorff_distance(guess, truth, spacing) if sizes[0] and sizes[1] else np.nan)
            only_predicted.append(sizes[0] > 0 and sizes[1] == 0)
        self.dice.append(np.array(dice))
        self.hd95.append(np.array(hd95))
        self.only_predicted.append(np.array(only_predicted))
        self.names.append(name)

    def metrics(self) -> dict[str, object]:
        """Return dice and hd95_mm (mean over structures of the mean over cases), the same by class and by case,
        undefined (how many of all case-structure pairs), and dice_synapse_rule, hd95_synapse_rule_mm."""
        dice, hd95 = np.array(self.dice), np.array(self.hd95)  # (cases, K - 1)
        false = np.array(self.only_predicted)
        theirs_dice = np.where(false, 1.0, np.nan_to_num(dice, nan=0.0))
        theirs_hd95 = np.nan_to_num(hd95, nan=0.0)
        by_class = _mean_by_column(dice), _mean_by_column(hd95)
        return {
            "dice": float(_mean_by_column(by_class[0])),
            "hd95_mm": float(_mean_by_column(by_class[1])),
            "dice_by_class": by_class[0].tolist(),
            "hd95_mm_by_class": by_class[1].tolist(),
            "undefined": {"dice": int(np.isnan(dice).sum()), "hd95": int(np.isnan(hd95).sum()), "pairs": dice.size},
            "dice_synapse_rule": float(theirs_dice.mean()),
            "hd95_synapse_rule_mm": float(theirs_hd95.mean()),
            "cases": [
                {"name": name, "dice": one.tolist(), "hd95_mm": other.tolist()}
                for name, one, other in zip(self.names, dice, hd95, strict=True)
            ],
        }


def _mean_by_column(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)

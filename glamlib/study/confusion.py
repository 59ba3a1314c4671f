"""Segmentation metrics from one accumulated confusion matrix.

Averaging a score over batches is not the data set's score; one matrix over all pixels is. A class that occurs neither
in the truth nor in the prediction has no IoU: NaN, left out of the mean.
"""

import numpy as np
import torch
from torch import Tensor

from glamlib.errors import InputError


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

"""Segmentation metrics: IoU from one accumulated confusion matrix, Dice and HD95 of volumes.
The mean of a score over batches is not the data set's score; one matrix over all pixels gives it. A class that occurs
neither in the truth nor in the prediction has no IoU: NaN, left out of the mean.

Volumes are scored structure by structure and case by case. A structure that is neither in the truth nor in the
prediction has no Dice (undefined, left out of means); one that is only predicted, or only true, has Dice 0. HD95, the
95th percentile of the distances between the two surfaces in mm, exists only where both have the structure. Undefined
cases are counted. Many papers on Synapse score by another rule (TransUNet's evaluation), which is given beside ours:
Dice 1 and HD95 0 where a structure is predicted and not there, Dice 0 and HD95 0 where it is missed or in neither.
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from glamlib.data.datasets import VolumeDataset
from glamlib.errors import InputError

# of MONAI, about an argument that it passes to itself
warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)


class ConfusionMatrix(MulticlassConfusionMatrix):
    """Counts of pixels by true class (rows) and predicted class (columns), in `compute` over all processes of a run."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, validate_args=False)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add the pixels of integer tensors of one shape. InputError for a label outside the classes."""
        wrong = label[(label >= self.num_classes) & (label != self.ignore_index)]
        if len(wrong):
            allowed = f"0 to {self.num_classes - 1} and {self.ignore_index} (ignored)"
            raise InputError(f"label value {int(wrong.max())}: allowed are {allowed}")
        super().update(prediction.to(self.device), label.to(self.device))

    def metrics(self) -> dict[str, object]:
        """Return miou, iou (one a class, NaN where absent), pixel_accuracy, mean_accuracy, all in 0..1; confusion."""
        counts = self.compute().cpu()
        hits, truth, guess = counts.diag().double(), counts.sum(dim=1), counts.sum(dim=0)
        iou = hits / (truth + guess - hits)  # 0 / 0 is the absent class's NaN
        return {
            "miou": iou.nanmean().item(),
            "iou": iou.tolist(),
            "pixel_accuracy": (hits.sum() / truth.sum()).item(),
            "mean_accuracy": (hits / truth).nanmean().item(),
            "confusion": counts.tolist(),
        }


def location_prior(train: Sequence[tuple[Tensor, Tensor]], test: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return what an answer that never looks at the image scores on a data set ``test``: mIoU, of volumes mean Dice.

    It is the most frequent class of some 200 training labels at each place, on a grid of 48 places a side.
    """
    grid, count = (48,) * test[0][1].ndim, len(test.classes)
    votes, cases = torch.zeros(count, *grid), []
    for index in range(0, len(train), max(1, len(train) // 200)):
        label = functional.interpolate(train[index][1][None, None].float(), grid, mode="nearest-exact")[0, 0]
        votes += torch.stack([label == number for number in range(count)])
    prior = votes.argmax(dim=0)[None, None].float()
    for index in range(len(test)):
        label, matrix = test[index][1], ConfusionMatrix(count, test.ignore_index)
        matrix.update(functional.interpolate(prior, label.shape, mode="nearest-exact")[0, 0].long(), label)
        cases.append(matrix.confmat)  # not compute: every process counts all
    counts = torch.stack(cases).double()  # (cases, truth, guess)
    if len(grid) == 2:
        counts = counts.sum(dim=0, keepdim=True)  # one matrix over all images
    hits, sizes = counts.diagonal(dim1=1, dim2=2), counts.sum(dim=1) + counts.sum(dim=2)
    scores = hits / (sizes - hits) if len(grid) == 2 else (2 * hits / sizes)[:, 1:]  # background is no structure
    return scores.nanmean(dim=0).nanmean().item()


def by_class(metrics: dict[str, object], classes: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Return of each class its true pixels, IoU and, of a structure in volumes, Dice and HD95."""
    rows = {"pixels": list(map(sum, metrics["confusion"])), "iou": metrics["iou"]}
    for name in ("dice", "hd95_mm"):
        if f"{name}_by_class" in metrics:
            rows[name] = [math.nan, *metrics[f"{name}_by_class"]]  # the first class is the background
    return {name: {key: values[number] for key, values in rows.items()} for number, name in enumerate(classes)}


class VolumeScores:
    """Dice and HD95 of every structure (all classes but the first) in every case, without voxels that are ignored."""

    def __init__(self, dataset: VolumeDataset) -> None:
        self.dataset = dataset
        self.cases: list[dict[str, object]] = []
        self.only_predicted: list[list[bool]] = []

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Add a case, integer ``(D, H, W)`` tensors; the signature is `evaluate`'s ``on_image``."""
        from monai.metrics import compute_dice, compute_hausdorff_distance  # importing MONAI takes seconds

        how = {"percentile": 95, "spacing": list(self.dataset.spacing(index))}  # the sides of a voxel in mm
        hausdorff = partial(compute_hausdorff_distance, include_background=True, **how)
        prediction = prediction.where(label != self.dataset.ignore_index, 0)
        dice, hd95, only_predicted = [], [], []
        for number in range(1, len(self.dataset.classes)):
            guess, truth = (prediction == number)[None, None], (label == number)[None, None]  # (1, 1, D, H, W)
            guessed, true = bool(guess.any()), bool(truth.any())
            dice.append(compute_dice(guess, truth, ignore_empty=False).item() if guessed or true else math.nan)
            hd95.append(hausdorff(guess, truth).item() if guessed and true else math.nan)
            only_predicted.append(guessed and not true)
        self.cases.append({"name": self.dataset.name(index), "dice": dice, "hd95_mm": hd95})
        self.only_predicted.append(only_predicted)

    def metrics(self) -> dict[str, object]:
        """Return dice and hd95_mm (mean over structures of the mean over cases), the same by class and by case,
        undefined (how many of all case-structure pairs), and dice_synapse_rule, hd95_synapse_rule_mm."""
        dice, hd95 = (torch.tensor([case[name] for case in self.cases]).double() for name in ("dice", "hd95_mm"))
        dice_by_class, hd95_by_class = dice.nanmean(dim=0), hd95.nanmean(dim=0)  # of (cases, structures)
        undefined = {"dice": dice.isnan().sum().item(), "hd95": hd95.isnan().sum().item(), "pairs": dice.numel()}
        return {
            "dice": dice_by_class.nanmean().item(),
            "hd95_mm": hd95_by_class.nanmean().item(),
            "dice_by_class": dice_by_class.tolist(),
            "hd95_mm_by_class": hd95_by_class.tolist(),
            "undefined": undefined,
            "dice_synapse_rule": dice.nan_to_num(0).where(~torch.tensor(self.only_predicted), 1.0).mean().item(),
            "hd95_synapse_rule_mm": hd95.nan_to_num(0).mean().item(),
            "cases": self.cases,
        }

"""Dice and HD95 of volumes, structure by structure and case by case.

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


@dataclass
class VolumeScores:
    """Scores of one structure a column, one case a row; gathered by `update`, summed up by `metrics`."""

    classes: tuple[str, ...]
    names: list[str] = field(default_factory=list)
    dice: list[np.ndarray] = field(default_factory=list)
    hd95: list[np.ndarray] = field(default_factory=list)
    only_predicted: list[np.ndarray] = field(default_factory=list)

    def update(self, name: str, prediction: Tensor, label: Tensor, spacing: tuple[float, float, float]) -> None:
        """Add a case: integer ``(D, H, W)`` tensors and the sides of a voxel in mm."""
        classes = torch.arange(1, len(self.classes)).view(-1, 1, 1, 1)
        guess, truth = prediction[None] == classes, label[None] == classes  # (K - 1, D, H, W)
        volumes = [one.flatten(1).sum(1).double().numpy() for one in (guess, truth, guess & truth)]
        with np.errstate(invalid="ignore"):  # 0 / 0 is the undefined case's NaN
            self.dice.append(2 * volumes[2] / (volumes[0] + volumes[1]))
        self.hd95.append(_hd95(guess, truth, spacing))
        self.only_predicted.append((volumes[0] > 0) & (volumes[1] == 0))
        self.names.append(name)

    def metrics(self) -> dict[str, object]:
        """Return dice and hd95_mm (mean over structures of the mean over cases), the same by class and by case,
        undefined (how many of all case-structure pairs), and dice_synapse_rule, hd95_synapse_rule_mm."""
        dice, hd95 = np.array(self.dice), np.array(self.hd95)  # (cases, K - 1)
        false = np.array(self.only_predicted)
        theirs_dice = np.where(false, 1.0, np.nan_to_num(dice, nan=0.0))
        theirs_hd95 = np.nan_to_num(hd95, nan=0.0)
        by_class = _mean(dice), _mean(hd95)
        return {
            "dice": float(_mean(by_class[0])),
            "hd95_mm": float(_mean(by_class[1])),
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


def _hd95(guess: Tensor, truth: Tensor, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return HD95 in mm of every structure ``(K - 1,)``, NaN where either lacks it; masks ``(K - 1, D, H, W)``."""
    from monai.metrics import compute_hausdorff_distance

    found = np.full(len(guess), np.nan)
    both = guess.flatten(1).any(1) & truth.flatten(1).any(1)
    if both.any():
        distances = compute_hausdorff_distance(
            guess[both][None], truth[both][None], include_background=True, percentile=95, spacing=list(spacing)
        )
        found[both.numpy()] = distances[0].numpy()
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)

"""What mIoU does not tell about cue scenes and volumes: how many shape pixels are found, how many get the right class,
by distance to the cue, and what guessing would give."""

import numpy as np
import pandas as pd
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from glamlib.data.scenes import CueScenes, CueVolumes
from glamlib.evaluation.evaluate import gathered

BIN = 8  # pixels or voxels of distance


class CueAccuracy:
    """Shape pixels right, found (as some shape) and in all, by distance of cue and shape; and pixels of each class."""

    def __init__(self, scenes: CueScenes | CueVolumes) -> None:
        self.scenes = scenes
        diagonal = np.sqrt(scenes.scene(0).shapes.ndim) * scenes.config.size
        self.counts = np.zeros((3, int(np.ceil(diagonal / BIN))), dtype=np.int64)  # right, found, all
        self.pixels = np.zeros(len(scenes.classes), dtype=np.int64)

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Add one scene's prediction, ``(H, W)`` or ``(D, H, W)``; the signature is `evaluate`'s ``on_image``."""
        scene = self.scenes.scene(index)
        self.pixels += np.bincount(label.flatten(), minlength=len(self.pixels))
        right, found = (prediction == label).numpy(), (prediction > 0).numpy()
        for number, distance in enumerate(scene.distances, start=1):
            inside = scene.shapes == number
            self.counts[:, int(distance) // BIN] += [np.count_nonzero(some & inside) for some in (right, found, inside)]

    def metrics(self) -> dict[str, object]:
        """Return what was counted over the scenes of all processes.

        cue_accuracy: the share of shape pixels that are right, which is found (outlines) times right_given_found (the
        cue). cue_chance: right_given_found of a guess among the classes. cue_constant: that of the most frequent class
        as the answer to all. escaped: 1 where right_given_found is past the middle between that and 1, else 0.
        guessing_loss: the cross-entropy in nats per pixel of all shapes found and classes guessed. by_distance: rows
        of from_px, to_px, pixels, found, accuracy.
        """
        counts, pixels = (np.sum(gathered(own), axis=0) for own in (self.counts, self.pixels))
        rows = [
            {"from_px": BIN * i, "to_px": BIN * (i + 1), "pixels": total}
            | {"found": found / total, "accuracy": right / total}
            for i, (right, found, total) in enumerate(counts.T.tolist())
            if total
        ]
        right, found, total = counts.sum(axis=1).tolist()
        given_found = right / found if found else np.nan
        constant = int(pixels[1:].max()) / total
        return {
            "cue_accuracy": right / total,
            "found": found / total,
            "right_given_found": given_found,
            "cue_chance": 1 / (len(pixels) - 1),
            "cue_constant": constant,
            "escaped": int(given_found > (1 + constant) / 2),
            "guessing_loss": float(entropy(pixels[1:]) * total / pixels.sum()),
            "by_distance": rows,
        }


def steps_to_criterion(history: list[dict[str, float]], loss: float) -> float:
    """Return the first step after which the mean ``loss`` of five rows of a history is below ``loss``; NaN for none."""
    rows = pd.DataFrame(history)
    return float(rows["step"][rows["loss"].rolling(5).mean() < loss].min())


def ceiling_by_distance(model: nn.Module, scenes: CueScenes) -> pd.DataFrame:
    """Return the share of found shape pixels that a network whose fields are boxes cannot exceed on cue scenes.

    A pixel whose field holds no pixel of the tile can only be guessed. Fields are those of the untrained ``model``, by
    its gradient along the diagonal. Rows are of a distance (the middle of a bin) and its accuracy.
    """
    config, places = scenes.config, torch.arange(scenes.config.size)
    images = torch.randn(config.size, len(scenes[0][0]), *(config.size,) * config.dims, requires_grad=True)
    logits = model.eval()(images)[(places, slice(None), *(places,) * config.dims)]  # (size, classes): pixel i of item i
    (gradient,) = torch.autograd.grad((logits * torch.randn(logits.shape[1])).sum(), images)
    sees = (gradient.flatten(3).abs().amax(dim=(1, 3)) > 0).numpy()  # (size, size): pixel i sees place j
    start, stop, rows = sees.argmax(axis=1), config.size - sees[:, ::-1].argmax(axis=1), []
    for scene in map(scenes.scene, range(len(scenes))):
        pixels, corner = np.argwhere(scene.shapes), np.array(scene.cells[0])
        told = ((start[pixels] < corner + config.cue_size) & (corner < stop[pixels])).all(axis=1)
        distance = scene.distances[scene.shapes[tuple(pixels.T)] - 1]
        rows.append(pd.DataFrame({"distance": distance // BIN * BIN + BIN / 2, "accuracy": told}))
    found = pd.concat(rows).groupby("distance", as_index=False).mean()
    return found.assign(accuracy=found["accuracy"] + (1 - found["accuracy"]) / config.num_cues)

"""What mIoU does not tell about cue scenes and volumes: how many shape pixels get the right class, by distance to the
cue."""

import numpy as np
from torch import Tensor

from glamlib.data.scenes import CueScenes, CueVolumes
from glamlib.evaluation.processes import summed

BIN = 8  # pixels or voxels of distance


class CueAccuracy:
    """Shape pixels that are right and in all, by distance from the cue's centre to the shape's."""

    def __init__(self, scenes: CueScenes | CueVolumes) -> None:
        self.scenes = scenes
        diagonal = np.sqrt(scenes.scene(0).shapes.ndim) * scenes.config.size
        self.counts = np.zeros((2, int(np.ceil(diagonal / BIN))), dtype=np.int64)  # right, all

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Add one scene's prediction, ``(H, W)`` or ``(D, H, W)``; the signature is `evaluate`'s ``on_image``."""
        scene = self.scenes.scene(index)
        right = (prediction == label).numpy()
        for number, distance in enumerate(scene.distances, start=1):
            inside = scene.shapes == number
            self.counts[:, int(distance) // BIN] += np.count_nonzero(right & inside), np.count_nonzero(inside)

    def metrics(self) -> dict[str, object]:
        """Return cue_accuracy and its chance level, and by_distance: rows of from_px, to_px, pixels, accuracy.

        Over the scenes of all processes.
        """
        counts = summed(self.counts)
        rows = [
            {"from_px": BIN * i, "to_px": BIN * (i + 1), "pixels": int(total), "accuracy": float(right / total)}
            for i, (right, total) in enumerate(counts.T)
            if total
        ]
        right, total = counts.sum(axis=1)
        return {
            "cue_accuracy": float(right / total),
            "cue_chance": 1 / self.scenes.config.num_cues,
            "by_distance": rows,
        }

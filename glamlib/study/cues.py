"""What mIoU does not tell about cue scenes: the share of shape pixels given the right class, by distance to the cue."""

import numpy as np
from torch import Tensor

from glamlib.data.scenes import CueScenes

BIN = 8  # pixels of distance


class CueAccuracy:
    """Shape pixels right and in all, by distance from the cue's centre to the shape's."""

    def __init__(self, scenes: CueScenes) -> None:
        self.scenes = scenes
        bins = int(np.ceil(np.sqrt(2) * scenes.config.size / BIN))
        self.right = np.zeros(bins, dtype=np.int64)
        self.total = np.zeros(bins, dtype=np.int64)

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Add one scene's prediction ``(H, W)``; the signature is that of `evaluate`'s ``on_image``."""
        scene = self.scenes.scene(index)
        right = (prediction == label).numpy()
        for number, distance in enumerate(scene.distances, start=1):
            inside = scene.shapes == number
            self.right[int(distance) // BIN] += np.count_nonzero(right & inside)
            self.total[int(distance) // BIN] += np.count_nonzero(inside)

    def metrics(self) -> dict[str, object]:
        """Return cue_accuracy and its chance level, and by_distance: rows of from_px, to_px, pixels, accuracy."""
        rows = [
            {"from_px": BIN * i, "to_px": BIN * (i + 1), "pixels": int(total), "accuracy": float(right / total)}
            for i, (right, total) in enumerate(zip(self.right, self.total, strict=True))
            if total
        ]
        return {
            "cue_accuracy": float(self.right.sum() / self.total.sum()),
            "cue_chance": 1 / self.scenes.config.num_cues,
            "by_distance": rows,
        }

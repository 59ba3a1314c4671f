"""A few pictures of a run that outlive its weights: example predictions and the effective receptive field."""

import numpy as np
import torch
from torch import Tensor

from glamlib.data.registry import SegmentationDataset
from glamlib.models.segmenter import Segmenter

from .insight import effective_receptive_field
from .processes import gathered


class Gallery:
    """Predictions of ``count`` test images, evenly spaced over the set and so the same for every run."""

    def __init__(self, dataset: SegmentationDataset, count: int = 4) -> None:
        self.dataset = dataset
        self.predictions: dict[int, np.ndarray] = {
            int(index): np.empty(0) for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        }

    def update(self, index: int, prediction: Tensor) -> None:
        """Keep the prediction ``(H, W)`` of image ``index`` if it is one of the chosen."""
        if index in self.predictions:
            self.predictions[index] = prediction.numpy().astype(np.uint8)

    def arrays(self, model: Segmenter) -> dict[str, np.ndarray]:
        """Return images ``(n, 3, H, W)``, labels and predictions ``(n, H, W)``, all uint8, and erf ``(H, W)`` float16.

        The receptive field is that of the centre pixel, over the same images, scaled to a largest value of 1. Images of
        different sizes are cut to the smallest. To be called in all processes of a run.
        """
        for kept in gathered({index: guess for index, guess in self.predictions.items() if guess.size}):
            self.predictions |= kept
        pairs = [self.dataset[index] for index in self.predictions]
        height, width = (min(label.shape[axis] for _, label in pairs) for axis in (0, 1))
        images = torch.stack([image[:, :height, :width] for image, _ in pairs])
        erf = effective_receptive_field(model, images)
        return {
            "images": images.numpy(),
            "labels": np.stack([label[:height, :width].numpy() for _, label in pairs]),
            "predictions": np.stack([guess[:height, :width] for guess in self.predictions.values()]),
            "erf": (erf / erf.max()).astype(np.float16),
        }

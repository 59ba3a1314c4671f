"""A few pictures of a run that outlive its weights: example predictions and the effective receptive field.

MERGED: A few slices of a run's predictions that outlive its weights.
"""

import numpy as np
import torch
from torch import Tensor

from glamlib.data.datasets import SegmentationDataset
from glamlib.data.volumes import VolumeDataset
from glamlib.evaluation.insight import effective_receptive_field
from glamlib.evaluation.processes import gathered
from glamlib.models.segmenter import Segmenter


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


class VolumeGallery:
    """One slice of each of ``count`` test volumes, evenly spaced over the set and so the same for every run.

    The slice, across the first axis, is the one with the most voxels of structures in the truth.
    """

    def __init__(self, dataset: VolumeDataset, count: int = 3) -> None:
        self.dataset = dataset
        chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        self.slices: dict[int, tuple[int, np.ndarray]] = {int(index): (0, np.empty(0)) for index in chosen}

    def update(self, index: int, prediction: Tensor) -> None:
        """Keep a slice of the prediction ``(D, H, W)`` of volume ``index`` if it is one of the chosen."""
        if index in self.slices:
            _, label = self.dataset[index]
            depth = int((label > 0).flatten(1).sum(1).argmax())
            self.slices[index] = depth, prediction[depth].numpy().astype(np.uint8)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return images (from the lowest value 0 to the highest 255), labels, predictions, all uint8 ``(n, H, W)``.

        Slices of different sizes are cut to the smallest.
        """
        cut: dict[str, list[np.ndarray]] = {"images": [], "labels": [], "predictions": []}
        for index, (depth, prediction) in self.slices.items():
            image, label = self.dataset[index]
            plane = image[0, depth].numpy()
            span = max(float(plane.max() - plane.min()), 1e-6)
            cut["images"].append(((plane - plane.min()) / span * 255).astype(np.uint8))
            cut["labels"].append(label[depth].numpy())
            cut["predictions"].append(prediction)
        height, width = (min(label.shape[axis] for label in cut["labels"]) for axis in (0, 1))
        return {name: np.stack([plane[:height, :width] for plane in planes]) for name, planes in cut.items()}

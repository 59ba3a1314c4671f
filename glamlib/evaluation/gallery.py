"""A few predictions of a run that outlive its weights."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from glamlib.data.datasets import SegmentationDataset, VolumeDataset
from glamlib.data.transforms import resize
from glamlib.evaluation.inference import view_size
from glamlib.evaluation.processes import gathered
from glamlib.studies.parameters import InferenceOptions


class Gallery:
    """Predictions of ``count`` test images or volumes, evenly spaced over the set and so the same for every run.

    Of a volume it shows one slice across the first axis: the one with the most voxels of structures in the truth.
    """

    def __init__(
        self, dataset: SegmentationDataset | VolumeDataset, count: int, options: InferenceOptions | None = None
    ) -> None:
        self.dataset, self.options = dataset, options  # images are shown at the size at which they are predicted
        self.chosen = set(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist())
        self.shown: dict[int, list[np.ndarray]] = {}  # by index: image, label, prediction

    def update(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Take what `evaluate` calls ``on_image`` with, if the item is one of the chosen."""
        if index not in self.chosen:
            return
        image, _ = self.dataset[index]
        if label.ndim == 3:
            depth = int((label > 0).flatten(1).sum(1).argmax())
            image = F.interpolate(image[None, :1], label.shape, mode="nearest-exact")[0]  # labels may have own voxels
            image, label, prediction = image[0, depth], label[depth], prediction[depth]
            image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6) * 255
        elif self.options:
            size = view_size(*label.shape, self.options)
            (image, label), (_, prediction) = resize(image, label, size), resize(image, prediction, size)
        self.shown[index] = [plane.numpy().astype(np.uint8) for plane in (image, label, prediction)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return images, labels and predictions, all uint8, cut to the smallest; to be called in all processes.

        Labels and predictions are ``(n, H, W)``, images ``(n, 3, H, W)``; of volumes ``(n, H, W)``, grey from the
        lowest value 0 to the highest 255.
        """
        shown = {index: planes for part in gathered(self.shown) for index, planes in part.items()}
        height, width = np.min([label.shape for _, label, _ in shown.values()], axis=0)
        return {
            name: np.stack([shown[index][number][..., :height, :width] for index in sorted(shown)])
            for number, name in enumerate(("images", "labels", "predictions"))
        }

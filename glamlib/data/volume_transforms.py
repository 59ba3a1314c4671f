"""Training patches of volumes: where they are cut and how they are varied, by MONAI's transforms.

What is varied follows the released 3D configurations (flips, rotation, scaling, intensity, noise); the numbers are a
study's choice. The random numbers of an item come from the generator that the call is given.
"""

from dataclasses import dataclass
from math import ceil, radians, sin
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import (
    Compose,
    Lambdad,
    RandAffined,
    RandCropByLabelClassesd,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
)
from torch import Tensor

from glamlib.data.transforms import Factor, Share, Side
from glamlib.data.volumes import VolumeDataset
from glamlib.errors import Checked, InputError, Range

_BOTH = ("image", "label")


@dataclass(frozen=True)
class VolumeTransform(Checked):
    """Cut a patch from a volume and vary it. `for_dataset` makes one that mirrors along the axes it may.

    Args:
        patch_size: (depth, height, width) of what comes out, in voxels.
        foreground: share of the patches that are centred on a voxel of a structure, all structures of the volume
            equally likely, however small. The other patches lie anywhere.
        flip_axes: axes of (D, H, W) along which a patch may be mirrored.
        flip: probability of a mirror along each of them.
        rotate: the largest angle in degrees, either way, about each axis; meant for voxels that are nearly cubes.
        scale: range of the factor by which structures grow along each axis.
        intensity: the image is multiplied by a factor of 1 - intensity to 1 + intensity, and a shift of -intensity to
            intensity is added (units of the normalised image).
        noise: the largest standard deviation of the Gaussian noise, in the same units.
    """

    role: ClassVar[str] = "option of augment"

    patch_size: tuple[Side, Side, Side]
    foreground: Share = 0.5
    flip_axes: tuple[Annotated[int, Range(0, 2)], ...] | tuple[()] = ()
    flip: Share = 0.5
    rotate: Annotated[float, Range(0, 180)] = 0.0
    scale: tuple[Factor, Factor] = (1.0, 1.0)
    intensity: Share = 0.0
    noise: Annotated[float, Range(0, 10)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale[0] > self.scale[1]:
            raise InputError(f"{self.role} scale={self.scale}: must be (low, high) with low <= high")

    @classmethod
    def for_dataset(cls, dataset: VolumeDataset, **options: object) -> Self:
        """Return a transform that mirrors along all axes, but never left to right where ``dataset`` is sided.

        Raises InputError for a bad option, and for ``flip_axes`` that would exchange the sides.
        """
        side = 2 if dataset.sided else None
        made = cls.from_dict({"flip_axes": tuple(axis for axis in range(3) if axis != side), **options})
        if side in made.flip_axes:
            raise InputError(
                f"{cls.role} flip_axes={made.flip_axes}: must be without {side}, left to right: labels have sides"
            )
        return made

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new tensors (C, *patch_size) and (*patch_size) from an image (C, D, H, W) and its label (D, H, W).

        Where the patch reaches beyond the volume, the image has its smallest value, which is what surrounds a body or
        head, and the label is 255: what lies there is not known, and is not background.
        """
        if image.shape[1:] != label.shape:
            raise InputError(f"image {tuple(image.shape)} and label {tuple(label.shape)} differ in shape")
        smallest = float(image.min())
        varied = bool(self.rotate) or self.scale != (1.0, 1.0)
        # A patch that is rotated or shrunk is cut from a larger one, so that little of it is unknown.
        grow = (1 + 2 * sin(radians(min(self.rotate, 90)))) / min(self.scale[0], 1.0) if varied else 1.0
        sides = [ceil(side * grow) for side in self.patch_size]
        spare = [max(side - length, 0) for side, length in zip(sides, label.shape, strict=True)]
        widths = [end for n in reversed(spare) for end in (n // 2, n - n // 2)]
        # Outside is 0 for both: the image is shifted by its smallest value and the label (uint8) by one, so 255 is 0.
        item = {"image": F.pad(image - smallest, widths), "label": F.pad(label[None] + 1, widths).float()}
        around = rng.random() < self.foreground
        steps = self._steps(sides, around, varied, int(item["label"].max()) + 1, smallest)
        item = steps.set_random_state(int(rng.integers(2**32)))(item)
        item = item[0] if isinstance(item, list) else item  # a crop by classes may give several
        image, label = (item[name].as_tensor() for name in _BOTH)
        return image.float(), (label[0].round() - 1).to(torch.int16).to(torch.uint8)  # -1 becomes 255

    def _steps(self, sides: list[int], around: bool, varied: bool, num_values: int, smallest: float) -> Compose:
        anywhere = RandSpatialCropd(_BOTH, sides, random_size=False)
        steps: list[Randomizable] = [anywhere]
        if around and num_values > 2:
            ratios = [0, 0, *[1] * (num_values - 2)]  # of void, background and structures
            steps = [RandCropByLabelClassesd(_BOTH, "label", sides, ratios, num_classes=num_values, warn=False)]
        if varied:
            low, high = self.scale
            grid = (1 / high - 1, 1 / low - 1)  # the grid of samples shrinks where structures grow
            steps.append(
                RandAffined(
                    _BOTH,
                    self.patch_size,
                    prob=1.0,
                    rotate_range=(radians(self.rotate),) * 3,
                    scale_range=(grid,) * 3,
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                )
            )
        steps += [RandFlipd(_BOTH, self.flip, axis) for axis in self.flip_axes]
        steps.append(Lambdad("image", lambda values: values + smallest))
        if self.intensity:
            steps.append(RandScaleIntensityd("image", self.intensity, prob=1.0))
            steps.append(RandShiftIntensityd("image", self.intensity, prob=1.0))
        if self.noise:
            steps.append(RandGaussianNoised("image", 1.0, std=self.noise))
        return Compose(steps)

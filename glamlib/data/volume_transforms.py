"""Training patches of volumes: where they are cut and how they are varied, by MONAI's transforms.

What is varied follows the released 3D configurations (flips, rotation, scaling, intensity, noise); the numbers are a
study's choice. All random numbers of an item come from the generator that the call is given.
"""

from dataclasses import dataclass
from math import radians, sin
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from glamlib.data.datasets import VolumeDataset
from glamlib.data.transforms import VOID, Share, Side
from glamlib.data.volumes import LEFT_RIGHT
from glamlib.errors import Checked, InputError, Range

Factor = Annotated[float, Range(0.25, 4)]
_BOTH = ("image", "label")


@dataclass(frozen=True)
class VolumeTransform(Checked):
    """Cut a patch from a volume and vary it. `for_dataset` makes one that mirrors along the axes it may."""

    role: ClassVar[str] = "option of augment"

    patch_size: tuple[Side, Side, Side]  # (depth, height, width) of what comes out, in voxels
    # Share of the patches that are centred on a voxel of a structure, as far as the volume's border lets them: all
    # structures of the volume are equally likely, however small. The other patches lie anywhere.
    foreground: Share = 0.5
    flip_axes: tuple[Annotated[int, Range(0, 2)], ...] | tuple[()] = ()  # along which a patch may be mirrored
    flip: Share = 0.5  # probability of a mirror along each of them
    rotate: Annotated[float, Range(0, 180)] = 0.0  # the largest angle in degrees about each axis, for cubic voxels
    scale: tuple[Factor, Factor] = (1.0, 1.0)  # range of the factor by which structures grow
    intensity: Share = 0.0  # the largest change of the factor 1 and the shift 0 that are applied to the image's values
    noise: Annotated[float, Range(0, 10)] = 0.0  # the largest deviation of the Gaussian noise that is added

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale[0] > self.scale[1]:
            raise InputError(f"{self.role} scale={self.scale}: must be (low, high) with low <= high")

    @classmethod
    def for_dataset(cls, dataset: VolumeDataset, **options: object) -> Self:
        """Return a transform that mirrors along all axes, but never left to right where ``dataset`` is sided.

        Raises InputError for a bad option, and for ``flip_axes`` that would exchange the sides.
        """
        made = cls.from_dict({"flip_axes": (0, 1) if dataset.sided else (0, 1, 2), **options})
        if dataset.sided and LEFT_RIGHT in made.flip_axes:
            wanted = f"must be without {LEFT_RIGHT}, left to right: labels have sides"
            raise InputError(f"{cls.role} flip_axes={made.flip_axes}: {wanted}")
        return made

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new tensors (C, *patch_size) and (*patch_size) from an image (C, D, H, W) and its label (D, H, W).

        Where the patch reaches beyond the volume, because that is smaller or by rotation, the image has its channel's
        smallest value, which is what surrounds a body or head, and the label 255: what lies there is not known, and a
        network should not be taught that it is background.
        """
        from monai import transforms  # takes seconds, and most runs are on images

        # A patch that is rotated or scaled is cut with a margin, so that its corners are known, too.
        varied = self.rotate > 0 or self.scale != (1.0, 1.0)
        margin = self._margin() if varied else [0, 0, 0]
        sides = [side + 2 * more for side, more in zip(self.patch_size, margin, strict=True)]
        # MONAI fills with 0, so 0 is what lies outside: in the image the smallest value, in the label 255 + 1.
        low = image.amin((1, 2, 3), keepdim=True)
        item = {"image": image - low, "label": label[None] + 1}
        pad = transforms.Compose([transforms.SpatialPadd(_BOTH, self.patch_size), transforms.BorderPadd(_BOTH, margin)])
        item = pad(item)

        steps = [transforms.RandSpatialCropSamplesd(_BOTH, sides, num_samples=1, random_size=False)]
        structures = np.flatnonzero(torch.bincount(label.flatten(), minlength=VOID + 1)[1:VOID]) + 1
        if structures.size and rng.random() < self.foreground:
            item["structure"] = item["label"] == int(rng.choice(structures)) + 1
            steps = [transforms.RandCropByPosNegLabeld(_BOTH, "structure", sides, pos=1, neg=0)]
        if varied:
            angles, factor = rng.uniform(-self.rotate, self.rotate, size=3), rng.uniform(*self.scale)
            steps += [
                transforms.Affined(
                    _BOTH,
                    rotate_params=np.radians(angles).tolist(),
                    scale_params=(1 / factor,) * 3,
                    spatial_size=self.patch_size,
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                )
            ]
        steps += [transforms.RandFlipd(_BOTH, self.flip, axis) for axis in self.flip_axes]
        steps += [transforms.Lambdad("image", lambda values: values + low)]
        if self.intensity:
            steps += [transforms.RandScaleIntensityd("image", self.intensity, prob=1)]
            steps += [transforms.RandShiftIntensityd("image", self.intensity, prob=1)]
        if self.noise:
            steps += [transforms.RandGaussianNoised("image", prob=1, std=self.noise)]
        (item,) = transforms.Compose(steps).set_random_state(int(rng.integers(2**32)))(item)
        return item["image"].as_subclass(Tensor), item["label"].as_subclass(Tensor)[0].to(torch.uint8) - 1  # plain

    def _margin(self) -> list[int]:
        """Return by how much a rotated and shrunk patch reaches beyond the plain one, in voxels on each side."""
        half = np.array(self.patch_size) / 2
        reach = half + sin(radians(min(self.rotate, 90))) * (half.sum() - half)
        return np.ceil(reach / min(self.scale[0], 1) - half).astype(int).tolist()

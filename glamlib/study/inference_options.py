"""How an image is predicted: whole or in windows, at which sizes, mirrored too. Nothing here needs torch."""

import math
from dataclasses import dataclass, fields

from glamlib.errors import InputError, one_of

MODES = ("whole", "slide")


@dataclass(frozen=True)
class InferenceOptions:
    """The options of inference of images; as it stands, the whole image once, as it is.

    Attributes:
        mode: "whole", or "slide": windows of ``crop``, every ``stride``; the mean of their logits where they overlap.
        crop, stride: [height, width] in pixels, of "slide" alone; no stride above the crop.
        scales: the image is predicted at each of these ratios of its size.
        flip: also mirrored, left to right, at each.
        resize: [long, short], pixels that the longer and the shorter side may have; the image is resized, its aspect
            kept, to the largest size within both (times the scale). The recipe's is [2048, 512] for ADE20K.

    Raises InputError for values outside these meanings.
    """

    mode: str = "whole"
    crop: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise one_of("evaluate mode", self.mode, MODES)
        for name in ("crop", "stride", "resize"):
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        slide = self.mode == "slide"
        for name in ("crop", "stride"):
            if (getattr(self, name) is not None) != slide:
                raise InputError(f"evaluate mode {self.mode!r} {'needs a' if slide else 'takes no'} {name}")
        if slide and (self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]):
            raise InputError(
                f"evaluate stride={list(self.stride)}: above the crop {list(self.crop)}, which would leave gaps"
            )
        if not isinstance(self.scales, list | tuple) or not self.scales or not all(map(_is_ratio, self.scales)):
            raise InputError(f"evaluate scales={self.scales!r}: must be a list of ratios above 0")
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if type(self.flip) is not bool:
            raise InputError(f"evaluate flip={self.flip!r}: must be true or false")
        if self.resize and self.resize[0] < self.resize[1]:
            raise InputError(f"evaluate resize={list(self.resize)}: must be [long, short]")

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> "InferenceOptions":
        """Return the checked options; InputError for an unknown name or a bad value."""
        names = [item.name for item in fields(cls)]
        for name in values:
            if name not in names:
                raise one_of("option of evaluate", name, names)
        return cls(**values)


def _pair(name: str, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
        return tuple(value)
    raise InputError(f"evaluate {name}={value!r}: must be two whole numbers above 0")


def _is_ratio(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf

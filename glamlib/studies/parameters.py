"""How an image is predicted: whole or in windows, at which sizes, mirrored too. Nothing here needs torch.

MERGED: The parameters of a run: one frozen record, checked before anything is built.
"""

import math
import types
from dataclasses import asdict, dataclass, field, fields

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


# What IPython puts into a notebook's namespace.
_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}
PRECISIONS = ("fp32", "bf16")
DECAYS = ("matrices", "released")
DEVICES = ("cpu", "cuda", "auto")


def check_type(name: str, value: object, kind: type) -> object:
    """Return ``value`` as ``kind`` (int, float, str, bool, list or dict); an int may stand for a float. Or InputError.

    YAML reads ``1e-3`` as a string; the message says so.
    """
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        hint = " (in YAML write 1.0e-3, not 1e-3)" if kind is float and isinstance(value, str) else ""
        raise InputError(f"parameter {name}={value!r}: must be {kind.__name__}, not {type(value).__name__}{hint}")
    return value


@dataclass(frozen=True)
class RunParameters:
    """Everything that decides what a run computes. Two runs with equal parameters, code and machine are bit-identical.

    Attributes:
        study, variant, seed, profile: which run this is.
        model, overrides: for `glamlib.create_model`.
        pretrained: "" for random weights at the start, "imagenet" for Swin's (`places.imagenet_file`, or fetched by
            timm), or a file of such weights.
        dataset, data: which data (`glamlib.training.datasets`) and its options.
        augment: options of `TrainTransform` (images) or `VolumeTransform` (volumes); empty for none.
        evaluate: options of `InferenceOptions`, of images alone; empty for whole images as they are.
        steps, batch_size: optimiser steps and images a step, those of all processes together.
        accumulate: turns in which each process takes its part of a batch, to fit its memory.
        lr, weight_decay, warmup_steps, clip_norm: AdamW, linear warm-up to lr, then linear decay to 0; clip_norm 0 is
            no clipping. decay: which weights decay, "matrices" or as "released" (`parameter_groups`).
        precision: "fp32" or "bf16". device: "cpu", "cuda" or "auto". compile: train with compiled blocks.
        threads: CPU threads of the run; fixed, because it decides the order of sums. workers: loader processes.
        checkpoint_every: steps between checkpoints.
    """

    study: str
    variant: str
    seed: int
    profile: str
    model: str
    dataset: str
    steps: int
    batch_size: int
    lr: float
    overrides: dict = field(default_factory=dict)
    pretrained: str = ""
    data: dict = field(default_factory=dict)
    augment: dict = field(default_factory=dict)
    evaluate: dict = field(default_factory=dict)
    accumulate: int = 1
    weight_decay: float = 0.01
    decay: str = "matrices"
    warmup_steps: int = 0
    clip_norm: float = 1.0
    precision: str = "fp32"
    device: str = "cpu"
    compile: bool = False
    threads: int = 1
    workers: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, check_type(item.name, getattr(self, item.name), item.type))
        for name in ("steps", "batch_size", "accumulate", "threads", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"parameter {name}={getattr(self, name)}: must be at least 1")
        for name in ("seed", "lr", "weight_decay", "warmup_steps", "clip_norm", "workers"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"parameter {name}={getattr(self, name)}: must not be negative, infinite or NaN")
        if self.precision not in PRECISIONS:
            raise one_of("precision", self.precision, PRECISIONS)
        if self.decay not in DECAYS:
            raise one_of("decay", self.decay, DECAYS)
        if self.device not in DEVICES:
            raise one_of("device", self.device, DEVICES)
        InferenceOptions.from_dict(self.evaluate)  # raises

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> "RunParameters":
        """Return the checked record; InputError for an unknown or missing name or a wrong type."""
        names = [item.name for item in fields(cls)]
        for name in values:
            if name not in names:
                raise one_of("parameter", name, names)
        missing = [name for name in names[:9] if name not in values]
        if missing:
            raise InputError(f"missing parameters: {', '.join(missing)}")
        return cls(**values)

    @classmethod
    def from_notebook(cls, namespace: dict[str, object], **others: type) -> "RunParameters":
        """Return the run of a notebook's parameters cell, which holds these names and ``others`` (name to type)."""
        own = {item.name: item.type for item in fields(cls)}
        given = notebook_parameters(namespace, own | others)
        return cls.from_dict({name: given[name] for name in own})

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def notebook_parameters(namespace: dict[str, object], kinds: dict[str, type]) -> dict[str, object]:
    """Return a notebook's parameters from its ``globals()``; to be called right after the parameters cell.

    papermill only warns of a parameter that the notebook does not know, and runs on without it. Here every public name
    that the cells so far have set must be one of ``kinds`` and of its type, or InputError says which is not. When the
    cell is run again in the same kernel, later cells have set names of their own, and only types are checked.
    """
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in _IPYTHON
        and not isinstance(value, types.ModuleType | type)
        and not callable(value)
    }
    if not namespace.get("_parameters_checked"):
        for name in given:
            if name not in kinds:
                raise one_of("parameter", name, kinds)
    missing = [name for name in kinds if name not in given]
    if missing:
        raise InputError(f"missing parameters: {', '.join(missing)}")
    checked = {name: check_type(name, given[name], kind) for name, kind in kinds.items()}
    namespace["_parameters_checked"] = True
    return checked

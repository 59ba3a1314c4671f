"""The parameters of a run and of inference: frozen records, checked before anything is built."""

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, ClassVar, Literal

from glamlib.errors import Checked, Count, InputError, Natural, Range, check, one_of

NonNegative = Annotated[float, Range(0)]
Sides = tuple[Count, Count]


class _FolderName:
    def __contains__(self, name: str) -> bool:
        return re.fullmatch(r"[\w-][\w.-]*", name) is not None

    def __str__(self) -> str:
        return "of letters, digits, _, - and ., not beginning with ."


Name = Annotated[str, _FolderName()]


@dataclass(frozen=True)
class InferenceOptions(Checked):
    """How images are predicted; by default the whole image once, as it is.

    Attributes:
        mode: "whole", or "slide": windows of ``crop``, every ``stride``; the mean of their logits where they overlap.
        crop, stride: [height, width] in pixels, for "slide" alone.
        scales: ratios of the image's size at which it is predicted.
        flip: at each scale also mirrored, left to right.
        resize: [long, short]: before scaling, the image is resized to the largest size of its aspect within them.
        size: [height, width] that every image is resized to instead, as training data are by their option of this name.
    """

    role: ClassVar[str] = "option of evaluate"

    mode: Literal["whole", "slide"] = "whole"
    crop: Sides | None = None
    stride: Sides | None = None
    scales: tuple[Annotated[float, Range(0.01)], ...] = (1.0,)
    flip: bool = False
    resize: Sides | None = None
    size: Sides | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        slide = self.mode == "slide"
        for name in ("crop", "stride"):
            if (getattr(self, name) is not None) != slide:
                raise InputError(f"evaluate mode {self.mode!r} {'needs a' if slide else 'takes no'} {name}")
        if slide and (self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]):
            raise InputError(f"evaluate stride={list(self.stride)}: must not exceed the crop, {list(self.crop)}")
        if self.resize and self.resize[0] < self.resize[1]:
            raise InputError(f"evaluate resize={list(self.resize)}: must be [long, short]")
        if self.resize and self.size:
            raise InputError(f"evaluate resize={list(self.resize)}: cannot be combined with a size")


@dataclass(frozen=True)
class RunParameters(Checked):
    """All that decides what a run computes. Runs with equal parameters, code and machine are bit-identical.

    Attributes:
        study, variant, seed, profile: which run this is.
        model, overrides: for `glamlib.create_model`.
        pretrained: "" for random weights, "imagenet" for Swin's (`places.imagenet_file`, or timm's), or a file of them.
        dataset, data: which data and their options (`glamlib.training.datasets.run_data`).
        root: the folder of the data; "" for the sub-folder ``dataset`` of GLAM_DATA.
        augment: options of `TrainTransform` (images) or `VolumeTransform` (volumes); empty for none.
        evaluate: options of `InferenceOptions`, for images alone; empty for whole images as they are.
        steps, batch_size: optimiser steps, and images per step in all processes together.
        accumulate: micro-batches that a process splits its part of a batch into, to fit its memory.
        lr, weight_decay, warmup_steps: AdamW, linear warm-up to lr, then linear decay to 0.
        decay: which weights decay, "matrices" or as "released" (`parameter_groups`).
        clip_norm: the largest norm of the gradients; 0 for any.
        loss: the cross-entropy, of all classes alike or "balanced" (`glamlib.training.losses.balanced_weights`).
        validate_every: steps between validations on the data option val; the best weights are tested. 0: the last are.
        stop_at: the score on validation data that ends training; 0: none, all steps are taken.
        compile: train with compiled blocks.
        precision, device: "fp32" or "bf16" (autocast); "cpu", "cuda" or "auto", a GPU if there is one.
        threads: CPU threads; fixed, because they decide the order of sums. workers: loader processes.
        checkpoint_every: steps between checkpoints.
    """

    role: ClassVar[str] = "parameter"

    study: Name
    variant: Name
    seed: Annotated[int, Range(0, 2**32 - 1)]
    profile: Name
    model: str
    dataset: str
    steps: Count
    batch_size: Count
    lr: NonNegative
    overrides: dict = field(default_factory=dict)
    pretrained: str = ""
    data: dict = field(default_factory=dict)
    root: str = ""
    augment: dict = field(default_factory=dict)
    evaluate: dict = field(default_factory=dict)
    accumulate: Count = 1
    weight_decay: NonNegative = 0.01
    decay: Literal["matrices", "released"] = "matrices"
    warmup_steps: Natural = 0
    clip_norm: NonNegative = 1.0
    loss: Literal["cross_entropy", "balanced"] = "cross_entropy"
    validate_every: Natural = 0
    stop_at: NonNegative = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    compile: bool = False
    threads: Count = 1
    workers: Annotated[int, Range(0, 256)] = 0
    checkpoint_every: Count = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        InferenceOptions.from_dict(self.evaluate)  # raises
        if self.stop_at and not self.validate_every:
            raise InputError(f"parameter stop_at={self.stop_at}: needs validate_every, the steps between validations")

    @classmethod
    def from_notebook(cls, namespace: dict[str, object], **others: type) -> "RunParameters":
        """Return the run of a parameters cell, which also holds ``others`` and ``more``, a dict of parameters."""
        kinds = {item.name: item.type for item in fields(cls) if item.name in namespace}
        given = notebook_parameters(namespace, kinds | others | {"more": dict})
        return cls.from_dict({name: given[name] for name in kinds} | given["more"])

    @property
    def inference(self) -> dict[str, object]:
        """The options ``evaluate``; unless they say otherwise, images are resized as in training."""
        size, long_short = self.data.get("size"), self.augment.get("long_short")
        if {"size", "resize"} & self.evaluate.keys() or not (size or long_short) or isinstance(size, int):
            return self.evaluate
        return self.evaluate | ({"size": size} if size else {"resize": long_short})

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def notebook_parameters(namespace: dict[str, object], kinds: dict[str, object]) -> dict[str, object]:
    """Return a notebook's parameters from its ``globals()``; to be called right after the parameters cell.

    Raises InputError for a public name that is not one of ``kinds``, of which papermill only warns, or not of its type.
    When the cell is run again in the same kernel, later cells have set names of their own, and only types are checked.
    """
    values = str | int | float | list | tuple | dict | None
    public = {name for name, value in namespace.items() if name[0] != "_" and isinstance(value, values)}
    unknown = public - kinds.keys() - {"In", "Out"}  # IPython's
    if unknown and not namespace.get("_parameters_checked"):
        raise one_of("parameter", min(unknown), kinds)
    if missing := [name for name in kinds if name not in public]:
        raise InputError(f"missing parameter: {', '.join(missing)}")
    checked = {name: check(f"parameter {name}", namespace[name], kind) for name, kind in kinds.items()}
    namespace["_parameters_checked"] = True
    return checked

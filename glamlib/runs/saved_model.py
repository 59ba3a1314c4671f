"""A trained model in one safetensors file: the weights, and in the metadata all it takes to build and use the model."""

import sys
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
from torch import nn
from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from glamlib.data.datasets import dataset_of
from glamlib.data.layout import reading
from glamlib.data.volumes import Preprocessing
from glamlib.errors import InputError, lookup
from glamlib.studies.parameters import RunParameters
from glamlib.training.checkpoint import load_weights, read_tensors, write_tensors
from glamlib.training.datasets import GENERATED, OPTIONS, VOLUME_DATA, AnyDataset, run_data
from glamlib.training.loop import resolve_device
from glamlib.zoo import create_model

_KEY = "glamlib"
HeightWidth = Annotated[tuple[int, int] | None, arg(metavar="H W")]


@dataclass(frozen=True)
class SavedModel:
    """What a weights file holds: the network, the run that trained it, and one name and (r, g, b) a class.

    ``preprocessing`` and ``channels``: of volumes that lie in files. ``trained_on``: of own data, `FileItems.places`.
    """

    model: nn.Module
    run: RunParameters
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    preprocessing: Preprocessing | None = None
    channels: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()


def save_model(path: Path, saved: SavedModel) -> None:
    """Write a weights file atomically; InputError where that cannot be done."""
    about = {"parameters": saved.run.to_dict(), "in_channels": saved.model.in_channels}
    about |= {name: getattr(saved, name) for name in ("classes", "palette", "channels", "trained_on")}
    about["preprocessing"] = saved.preprocessing and asdict(saved.preprocessing)
    write_tensors(path, saved.model.state_dict(), _KEY, about)


def load_model(path: Path) -> SavedModel:
    """Return the model of a weights file, on the CPU, in evaluation mode; InputError for one that is bad or damaged.

    Nothing but tensors and JSON is read from the file.
    """
    with reading(path, "a weights file that `glamlib train --weights` wrote"):
        weights, about = read_tensors(path, _KEY)
        run, in_channels = RunParameters.from_dict(about["parameters"]), about["in_channels"]
        classes, palette = tuple(about["classes"]), tuple(map(tuple, about["palette"]))
        preprocessing = Preprocessing.from_dict(about["preprocessing"]) if about.get("preprocessing") else None
        own = {name: tuple(about.get(name, ())) for name in ("channels", "trained_on")}  # older files have none
        if np.array(palette, np.uint8).shape != (len(classes), 3):
            raise ValueError("not one colour a class")
    model = create_model(run.model, num_classes=len(classes), in_channels=in_channels, **run.overrides)
    load_weights(path, model, weights)
    return SavedModel(model.eval(), run, classes, palette, preprocessing, **own)


@dataclass(frozen=True)
class How:
    """How images are predicted: at the size that the training images were resized to, if any, unless resize is given.

    Attributes:
        whole: the image whole, however large, also where it would be in windows by itself.
        slide: windows of this height and width instead of the whole image; logits are averaged where they overlap.
        stride: from window to window; two thirds of the window unless given.
        scales: ratios of the image's size, after one --scales or several; probabilities are averaged.
        flip: predict also mirrored, and average.
        resize: predict at the largest size of the image's aspect within these pixels, long and short side.
        device: cpu, cuda or auto.
        precision: fp32 or bf16; that of training unless given.
        batch: images of one size that are predicted together; as many as in a micro-batch of training unless given.
    """

    whole: FlagCreatePairsOff[bool] = False
    slide: HeightWidth = None
    stride: HeightWidth = None
    scales: UseAppendAction[tuple[tuple[float, ...], ...]] = ()
    flip: FlagCreatePairsOff[bool] = False
    resize: Annotated[tuple[int, int] | None, arg(metavar="LONG SHORT")] = None
    device: str = "auto"
    precision: str | None = None
    batch: int | None = None

    def applied(self, run: RunParameters) -> RunParameters:
        """Return ``run`` with what is given here; its own inference options where none is given."""
        mode = "whole" if self.whole else "slide" if self.slide else ""
        stride = self.stride or tuple(max(1, side * 2 // 3) for side in self.slide or ())
        given = {"mode": mode, "crop": self.slide, "stride": stride}  # refused where one has no use for another
        given |= {"scales": tuple(chain(*self.scales)), "flip": self.flip, "resize": self.resize}
        evaluate = {name: value for name, value in given.items() if value}
        return replace(
            run,
            evaluate=replace(run, evaluate=evaluate or run.evaluate).inference,
            device=self.device,
            precision=self.precision or run.precision,
            batch_size=max(1, run.batch_size // run.accumulate) if self.batch is None else self.batch,
            accumulate=1,
        )


AS_TRAINED = How()


def load_ready(weights: Path, how: How) -> tuple[SavedModel, RunParameters]:
    """Return the model of a weights file, on its device, and its run with the options given."""
    saved = load_model(weights)
    run = how.applied(saved.run)
    saved.model.to(resolve_device(run.device))
    return saved, run


def chosen_data(
    weights: Path, run: RunParameters, saved: SavedModel, data: Path | None, dataset: str | None, split: str | None
) -> tuple[RunParameters, AnyDataset]:
    """Return ``run`` and its test data as the options of `evaluate` change them; InputError where they do not fit.

    It is told on stderr what they are, and whether the model was trained on some.
    """
    if data is not None and dataset is not None:
        raise InputError("give either --data PATH or --dataset NAME")
    own, split = data is not None, split or (None if data is None else "test")
    dataset = dataset_of(data) if own else dataset or run.dataset
    same, volumes = dataset == run.dataset, saved.model.config.ndim == 3
    if same and not own and dataset in ("folder", "volumes") and not run.root:
        raise InputError(f"{weights}: names no data; give --data PATH")
    if dataset in GENERATED and (split is not None or not same):
        raise InputError(f"{dataset} are drawn: for models trained on them alone, and without --split")
    if split is None and not same:
        raise InputError(f"--dataset {dataset}: give its --split, too")
    lookup("dataset", dataset, OPTIONS)  # an unknown one is no question of dimensions
    if volumes != (dataset in VOLUME_DATA):
        raise InputError(f"{weights}: a model of {'volumes' if volumes else 'images'}; {data or dataset} has none")
    options = (run.data if same else {"train": split}) | ({"test": split} if split else {})
    if saved.preprocessing is not None:  # as in training, whatever the folder's own spacing and values would suggest
        options |= {name: getattr(saved.preprocessing, name) for name in ("spacing", "scales")}
    run = replace(run, dataset=dataset, root=str(data) if own else run.root if same else "", data=options)
    items = run_data(run, "test")
    ours, theirs = ([name.lower() for name in names] for names in (saved.channels, getattr(items, "channels", ())))
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise InputError(f"{weights}: channels {saved.channels}; the data have another order: {items.channels}")
    known = {"channels": saved.model.in_channels, "classes": saved.classes}
    for (what, ours), theirs in zip(known.items(), (len(items[0][0]), tuple(items.classes)), strict=True):
        if ours != theirs:
            raise InputError(f"{weights}: {what} {ours}; of the data: {theirs}")
    where = f", split {run.data['test']}; {items.about}" if hasattr(items, "about") else ""
    print(f"{len(items)} items of {dataset}{where}".rstrip("; "), file=sys.stderr)
    if run.root and (seen := {*saved.trained_on}.intersection(items.places(run.root))):
        why = "; drawn splits change with a folder's items" if "held out of train" in items.about else ""
        print(f"warning: {len(seen)} of them were trained on, if {min(seen)} is the same{why}", file=sys.stderr)
    return run, items

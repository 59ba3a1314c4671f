"""The commands ``train``, ``evaluate`` and ``predict``: what the notebooks call, from the command line."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from glamlib.errors import InputError

if TYPE_CHECKING:
    from glamlib.runs.saved_model import SavedModel
    from glamlib.studies.parameters import InferenceOptions, RunParameters

WeightsFile = Positional[Annotated[Path, arg(metavar="WEIGHTS")]]
HeightWidth = Annotated[tuple[int, int] | None, arg(metavar="H W")]


@dataclass(frozen=True)
class How:
    """How images are predicted.

    Attributes:
        slide: windows of this height and width instead of the whole image; logits are averaged where they overlap.
        stride: from window to window; two thirds of the window unless given.
        scales: ratios of the image's size at each of which it is predicted; probabilities are averaged.
        flip: predict also mirrored, and average.
        resize: predict at the largest size of the image's aspect within these pixels, long and short side.
        device: cpu, cuda or auto.
        precision: fp32 or bf16; that of training unless given.
        batch: images of one size that are predicted together; as many as in a turn of training unless given.
    """

    slide: HeightWidth = None
    stride: HeightWidth = None
    scales: tuple[float, ...] = ()
    flip: FlagCreatePairsOff[bool] = False
    resize: Annotated[tuple[int, int] | None, arg(metavar="LONG SHORT")] = None
    device: str = "auto"
    precision: str | None = None
    batch: int | None = None

    def applied(self, run: "RunParameters") -> "RunParameters":
        """Return ``run`` with what is given here; its own inference options where none is given."""
        evaluate = {"flip": True} if self.flip else {}
        if self.slide:
            evaluate |= {"mode": "slide", "crop": self.slide}
            evaluate["stride"] = self.stride or tuple(max(1, side * 2 // 3) for side in self.slide)
        elif self.stride:
            evaluate["stride"] = self.stride  # refused: there is no window
        evaluate |= {"scales": self.scales} if self.scales else {}
        evaluate |= {"resize": self.resize} if self.resize else {}
        return replace(
            run,
            evaluate=evaluate or run.evaluate,
            device=self.device,
            precision=self.precision or run.precision,
            batch_size=max(1, run.batch_size // run.accumulate) if self.batch is None else self.batch,
            accumulate=1,
        )


def train(
    out: Annotated[Path, arg(metavar="RESULTS")],
    plan: Path | None = None,
    study: str | None = None,
    variant: str | None = None,
    seed: int = 0,
    profile: str = "cpu",
    set_values: Annotated[tuple[str, ...], arg(name="set", metavar="NAME=VALUE")] = (),
    weights: Path | None = None,
) -> int:
    """Train, evaluate and write the record of one run, as notebook 04 does; print the record's path.

    Args:
        out: folder of the results; the record goes to runs/STUDY/VARIANT/seed-K in it.
        plan: a plan file of `make`, instead of study, variant, seed and profile.
        study: name of a study.
        variant: one of the study's variants.
        seed: of weights, data and their order.
        profile: one of the study's sizes.
        set_values: parameters of the run to change; values are JSON, or else strings.
        weights: keep the trained weights in this file (safetensors).
    """
    run = _planned_run(plan, study, variant, seed, profile, set_values)
    from glamlib.runs.run import run_one

    try:
        print(run_one(run, out.resolve(), weights))
    except FloatingPointError as error:
        raise InputError(str(error)) from None
    return 0


def _planned_run(
    plan: Path | None, study: str | None, variant: str | None, seed: int, profile: str, changes: tuple[str, ...]
) -> "RunParameters":
    """Return the run that a plan file, or the name of a study and a variant, describes, with the changes made."""
    from glamlib.studies import find_study
    from glamlib.studies.parameters import RunParameters

    if (plan is None) == (study is None or variant is None) or (plan is not None and (study or variant)):
        raise InputError("give either --plan FILE, or --study and --variant")
    if plan is None:
        values = find_study(study).run(variant, seed, profile).to_dict()
    else:
        try:
            values = dict(json.loads(plan.read_text())["parameters"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{plan}: not a plan file ({type(error).__name__}: {error})") from None
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change!r}: must be NAME=VALUE")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return RunParameters.from_dict(values)


def evaluate(
    weights: WeightsFile,
    how: OmitArgPrefixes[How] = How(),
    dataset: str | None = None,
    split: str | None = None,
    out: Path | None = None,
) -> int:
    """Print the metrics of trained weights as JSON; without options those of the run's record, on its own test data.

    Args:
        weights: a file that `train --weights` wrote.
        how: how images are predicted; as in training unless something is given.
        dataset: another dataset of the same classes, in the folder that GLAM_DATA names.
        split: of the dataset.
        out: write the metrics to this file instead.
    """
    import torch

    from glamlib.files import write_whole
    from glamlib.runs.records import without_nan
    from glamlib.training.datasets import GENERATED, run_data
    from glamlib.training.tasks import task_of

    saved, run = _ready(weights, how)
    if split is not None and (dataset or run.dataset) in GENERATED:
        raise InputError(f"--split {split}: {dataset or run.dataset} are drawn and have no splits")
    if dataset is not None and dataset != run.dataset:
        if split is None:
            raise InputError(f"--dataset {dataset}: give its --split, too")
        run = replace(run, dataset=dataset, data={"train": split, "test": split})
    elif split is not None:
        run = replace(run, data=run.data | {"test": split})
    data = run_data(run, "test")
    if tuple(data.classes) != saved.classes:
        raise InputError(
            f"{weights}: classes {', '.join(saved.classes)}; the data have other ones: {', '.join(data.classes)}"
        )
    torch.set_num_threads(run.threads)  # as in training: it decides the order of sums
    metrics, _ = task_of(run).evaluate(saved.model, data, run)
    text = json.dumps(without_nan(metrics), indent=1) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_whole(out, text)
    return 0


def predict(
    weights: WeightsFile,
    source: Positional[Annotated[Path, arg(metavar="SOURCE")]],
    out: Annotated[Path, arg(metavar="FOLDER")],
    how: OmitArgPrefixes[How] = How(),
    raw_ids: FlagCreatePairsOff[bool] = False,
) -> int:
    """Write label maps (palettised PNG) and overlays of one's own images; exit status 1 if some could not be done.

    Args:
        weights: a file that `train --weights` wrote.
        source: an image, or a folder of images or of folders of images, for example a video's frames.
        out: gets labels/NAME.png and overlays/NAME.png.
        how: how images are predicted; as in training unless something is given.
        raw_ids: also write raw_ids/CITY_SEQUENCE_FRAME_labelIds.png, which the Cityscapes server takes.
    """
    from glamlib.runs.predict import image_files, predict_files

    files = image_files(source)
    saved, run = _ready(weights, how)
    failed = predict_files(saved, files, out, run.batch_size, run.precision, _options(run), raw_ids)
    print(f"{len(files) - len(failed)} of {len(files)} image(s) in {out}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def _ready(weights: Path, how: How) -> tuple["SavedModel", "RunParameters"]:
    """Return the model of a weights file, on its device, and its run with the options given."""
    from glamlib.runs.saved_model import load_model
    from glamlib.training.loop import resolve_device

    saved = load_model(weights)
    run = how.applied(saved.run)
    saved.model.to(resolve_device(run.device))
    return saved, run


def _options(run: "RunParameters") -> "InferenceOptions":
    from glamlib.studies.parameters import InferenceOptions

    return InferenceOptions.from_dict(run.evaluate)

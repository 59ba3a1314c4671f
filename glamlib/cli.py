"""The command line: ``python -m glamlib models | cost | check-data | train | compare | evaluate | predict | look``.

Bad input is one line on stderr and exit status 2.
"""

import io
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from glamlib.cost import count
from glamlib.data import check
from glamlib.data.folder import suggest_classes
from glamlib.data.layout import reading
from glamlib.errors import InputError
from glamlib.evaluation.evaluate import is_main
from glamlib.evaluation.metrics import by_class
from glamlib.files import check_writable, write_whole
from glamlib.runs.own import PROFILE, own_study, own_variants, run_study
from glamlib.runs.predict import predict_files, predict_volumes
from glamlib.runs.records import json_text, read_record
from glamlib.runs.run import run_one
from glamlib.runs.saved_model import AS_TRAINED, How, chosen_data, load_ready
from glamlib.studies import find_study
from glamlib.studies.parameters import RunParameters
from glamlib.studies.study import with_changes
from glamlib.training.tasks import task_of
from glamlib.zoo import create_model, list_models, model_config

Name = Positional[Annotated[str, arg(metavar="NAME")]]
Json = FlagCreatePairsOff[Annotated[bool, arg(name="json")]]
Changes = UseAppendAction[Annotated[tuple[tuple[str, ...], ...], arg(name="set", metavar="NAME=VALUE ...")]]
SHOWN = 5  # problems of a dataset in text; JSON has all
WeightsFile = Positional[Annotated[Path, arg(metavar="WEIGHTS")]]


def models(pattern: Positional[Annotated[str, arg(metavar="PATTERN")]] = "*") -> None:
    """Print the names of the models, one a line.

    Args:
        pattern: only names that match it, for example 'glam_*_tiny_*'.
    """
    for name in list_models(pattern):
        print(name)


def cost(
    name: Name,
    size: Annotated[tuple[int, int] | tuple[int, int, int], arg(metavar="[D] H W")],
    classes: int = 150,
    json_output: Json = False,
) -> None:
    """Print what a model costs: parameters and multiply-adds (1e9, "gmacs") by component.

    Args:
        name: a model; the command `models` lists them.
        size: height and width of the image in pixels, any from 1 on; for volumes (of one channel) the depth first.
        classes: number of classes.
        json_output: print JSON instead of a table.
    """
    axes = ("depth", "height", "width")[-model_config(name).ndim :]
    if len(size) != len(axes) or min(size) < 1:
        raise InputError(f"size={' '.join(map(str, size))}: {name} takes {', '.join(axes)}, each at least 1")
    sides, volumes = dict(zip(axes, size, strict=True)), "depth" in axes
    with torch.device("meta"):  # no memory for the weights: only their shapes count
        model = create_model(name, num_classes=classes, in_channels=1 if volumes else 3)
    found = count.cost(model, **sides)
    if json_output:
        counts = {"parameters": found.parameters, "gmacs": found.gmacs}
        print(json.dumps({"name": name, **sides, "classes": classes, **counts}))
        return
    unit = "one volume of {} voxels" if volumes else "one image of {} pixels"
    print(f"{name}, {classes} classes, {unit.format(' x '.join(str(side) for side in size))}")
    print(f"{'component':<16}{'parameters':>16}{'gmacs':>16}")
    for component in sorted(found.parameters, key=lambda component: component == "total"):
        print(f"{component:<16}{found.parameters[component]:>16,}{found.gmacs[component]:>16.6f}")


def check_data(
    name: Name,
    path: Positional[Annotated[Path, arg(metavar="PATH")]],
    json_output: Json = False,
    suggest: FlagCreatePairsOff[bool] = False,
) -> int:
    """Open every file of a dataset and print what is there; exit status 1 if anything is wrong with it.

    Args:
        name: camvid, ade20k, cityscapes, folder (one's own images), hippocampus, brains, synapse, volumes (one's own).
        path: the folder that holds it.
        json_output: print JSON instead of text.
        suggest: of a folder without a classes.json, write one that says what its labels hold. A colour that means
            "unlabelled", often black, is then moved by hand from "colors" to "ignore_colors", its name from "classes".
    """
    if suggest:
        if name != "folder":
            raise InputError(f"--suggest: {name} needs no classes.json; allowed: folder")
        print(suggest_classes(path), file=sys.stderr)
    report = check.check_data(name, path)
    text, rest = report.render(), report.problems[SHOWN:]
    if rest:
        text = text.replace("\n  ".join(rest), f"and {len(rest)} more; --json lists them all")
    print(json.dumps(report.to_dict()) if json_output else text)
    return 0 if report.ok else 1


def train(
    out: Annotated[Path, arg(metavar="RESULTS")],
    data: Path | None = None,
    model: str | None = None,
    name: str | None = None,
    plan: Path | None = None,
    study: str | None = None,
    variant: str | None = None,
    seed: int = 0,
    profile: str = "cpu",
    set_values: Changes = (),
    weights: Path | None = None,
) -> None:
    """Train, evaluate and write the record of one run, as notebook 14 does; print its test score and the record's path.

    The run is one on one's own data (--data, --model), a study's (--study, --variant) or a plan's (--plan). A finished
    one is not trained again, unless its weights are asked for and were not saved.

    Args:
        out: folder of the results; record and, of own data, best.safetensors go to runs/STUDY/VARIANT/seed-K in it.
        data: a folder of one's own images or volumes, with labels; what is not given follows from them.
        model: MODEL or MODEL:OVERRIDE=VALUE:..., for example glam_swin_tiny_upernet:num_global_tokens=5.
        name: of the study of one's own data; the folder's unless given.
        plan: a plan file of `make`.
        study: name of a study.
        variant: one of the study's variants.
        seed: of weights, data and their order.
        profile: one of the study's sizes.
        set_values: parameters of the run to change, or entries of those that have some, after one --set or several;
            values are JSON, or else strings. For example steps=2000 loss=balanced pretrained=imagenet augment.flip=0
        weights: save the trained weights in this file (safetensors).
    """
    changes, ways = list(chain(*set_values)), ((data, model), (study, variant), (plan,))
    whole, begun = ([join(item is not None for item in way) for way in ways] for join in (all, any))
    unread = (name is not None and data is None) or (plan is not None and seed) or (study is None and profile != "cpu")
    if whole != begun or sum(whole) != 1 or unread:
        more = "--name goes with --data, --profile with --study, --seed with both"
        raise InputError(f"give either --data and --model, or --study and --variant, or --plan FILE; {more}")
    if data is not None:
        if len(own_variants(model)) > 1:
            raise InputError(f"--model {model}: must be one model; the command compare takes several")
        own, changes = own_study(data, name, model, changes), []
        values = own.run(own.baseline, seed, PROFILE).to_dict()
    elif plan is None:
        values = find_study(study).run(variant, seed, profile).to_dict()
    else:
        with reading(plan, "a plan file"):
            values = dict(json.loads(plan.read_text())["parameters"])
    run = RunParameters.from_dict(with_changes(values, changes))
    record, name = run_one(run, out.resolve(), weights), task_of(run).score_name(run)
    if is_main():  # the others may be here before the record is
        score = read_record(record)["metrics"][name]
        print(f"{name} of the test data: {'undefined' if score is None else f'{score:.3f}'}")
    print(record)


def compare(
    data: Path,
    models: str,
    out: Annotated[Path, arg(metavar="RESULTS")],
    seeds: int = 3,
    name: str | None = None,
    set_values: Changes = (),
) -> int:
    """Train models on one's own data, test them, and print the table; exit status 1 if a run could not be done.

    Finished runs are not repeated, and an interrupted one goes on. Tables go to tables/NAME.csv, NAME_summary.csv and
    NAME.md, and all with learning curves and predictions to NAME.html.

    Args:
        data: a folder of one's own images or volumes, with labels; what is not given follows from them.
        models: MODEL,MODEL:OVERRIDE=VALUE:...; the others are compared with the first.
        out: folder of the results; each run's weights go to runs/NAME/MODEL/seed-K in it.
        seeds: runs of each model.
        name: of the comparison; the folder's unless given.
        set_values: parameters of the runs to change, as in `train`.
    """
    from glamlib.report.comparison import write_comparison  # importing the figures takes seconds

    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    check_writable(out / "tables" / "probe")
    study = own_study(data, name, models, chain(*set_values))
    parts, failed = run_study(study, seeds, out.resolve())
    if failed < seeds * len(study.variants):  # else only former records are there, of other settings
        print(write_comparison(out, study, parts["train"]))
    return 1 if failed else 0


def evaluate(
    weights: WeightsFile,
    how: OmitArgPrefixes[How] = AS_TRAINED,
    data: Path | None = None,
    dataset: str | None = None,
    split: str | None = None,
    out: Path | None = None,
) -> None:
    """Print the metrics of trained weights as JSON; without options those of the run's record, on its own test data.

    Args:
        weights: a file that `train --weights` wrote.
        how: how images are predicted; as in training unless something is given.
        data: a folder of one's own images or volumes of the same classes, instead of those of training.
        dataset: another dataset of the same classes, in the folder that GLAM_DATA names.
        split: of the dataset; that of the run, or of other data "test", unless given; "all" for all own images.
            Where that is, and how many, is said on stderr.
        out: write the metrics to this file instead.
    """
    saved, run = load_ready(weights, how)
    if out is not None:
        check_writable(out)
    run, items = chosen_data(weights, run, saved, data, dataset, split)
    # as in training, as far as this machine has them: they decide the order of sums
    torch.set_num_threads(min(run.threads, os.cpu_count()))
    metrics, _ = task_of(run).evaluate(saved.model, items, run)
    metrics["classes"] = by_class(metrics, saved.classes)
    write = partial(print, end="") if out is None else partial(write_whole, out)
    write(json_text(metrics))


def predict(
    weights: WeightsFile,
    source: Positional[Annotated[tuple[Path, ...], arg(metavar="SOURCE")]],
    out: Annotated[Path, arg(metavar="FOLDER")],
    how: OmitArgPrefixes[How] = AS_TRAINED,
    raw_ids: FlagCreatePairsOff[bool] = False,
    confidence: FlagCreatePairsOff[bool] = False,
) -> int:
    """Write label maps (palettised PNG) and overlays of one's own images; exit status 1 if some could not be done.

    Images more than twice as high or wide as the crops of training are predicted in windows of a crop's size; scores
    are of whole images, as by --whole. Label maps of volumes are NIfTI files in the geometry of the images.

    Args:
        weights: a file that `train --weights` wrote.
        source: an image, or a folder of images or of folders of images, for example a video's frames; of volumes a
            NIfTI file or a folder of them, with several channels as in the Decathlon or nnU-Net.
        out: gets labels/NAME.png and overlays/NAME.png, in sub-folders as the images, or labels/NAME.nii.gz.
        how: how images are predicted; as in training unless something is given.
        raw_ids: also write raw_ids/[CITY/]CITY_SEQUENCE_FRAME_labelIds.png, which the Cityscapes server takes.
        confidence: also write confidence/NAME.png, grey from 0 to 255: the probability of the class at each pixel.
    """
    if len(source) != 1:
        raise InputError(f"SOURCE: must be one file or one folder, not {len(source)}")
    saved, run = load_ready(weights, how)
    if saved.model.config.ndim == 3:
        if raw_ids or confidence:
            raise InputError(f"--raw-ids, --confidence: of images alone; {run.model} is a model of volumes")
        unit, (count, failed) = "volume", predict_volumes(saved, run, source[0], out)
    else:
        unit, (count, failed) = "image", predict_files(saved, run, source[0], out, raw_ids, confidence)
    print(f"{count - len(failed)} of {count} {unit}(s) in {out}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def look(
    weights: WeightsFile,
    photo: Positional[Annotated[Path, arg(metavar="PHOTO")]],
    at: Annotated[tuple[int, int], arg(metavar="X Y")],
    out: Annotated[Path, arg(metavar="PICTURE")],
    beside: Annotated[Path | None, arg(metavar="WEIGHTS")] = None,
    stage: int | None = None,
    receptive_field: FlagCreatePairsOff[bool] = False,
    device: str = "auto",
) -> None:
    """Draw where a pixel looks: the attention of Swin or GLAM, through windows and tokens, over the whole photo.

    Args:
        weights: a file that `train --weights` wrote.
        photo: an image; it is resized as in training where training images were. Unless a stage is given, a large one
            is made smaller until no attention at the highest resolution takes more than 1 GiB; the picture says so.
        at: the pixel's column and row, from 0 at the top left.
        out: the picture, a PNG.
        beside: weights of another model, drawn beside it at the first one's size.
        stage: of which resolution, 0 for the highest (patches of 4 pixels), which is shown unless given.
        receptive_field: below, also the effective receptive field: the gradient of the pixel's logits.
        device: cpu, cuda or auto.
    """
    from glamlib.report.looks import write_look  # importing the figures takes seconds

    check_writable(out)
    models = {file: load_ready(file, How(device=device)) for file in (weights, beside) if file}
    write_look(models, photo, at, out, stage, receptive_field)
    print(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (of ``sys.argv`` unless ``arguments`` are given) and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot print is no error
    app = tyro.extras.SubcommandApp()
    for command in (models, cost, check_data, train, compare, evaluate, predict, look):
        app.command(command)
    try:
        status = app.cli(args=arguments, prog="python -m glamlib") or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `... | head` has read enough; without this, Python's exit would try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; train and compare resume from the last checkpoint", file=sys.stderr)
        return 130

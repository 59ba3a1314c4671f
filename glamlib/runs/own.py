"""Runs on one's own data: what is not given follows from the data, by the rules here and nowhere else.

Every value can be given instead, as NAME=VALUE, and the values that depend on it follow.
"""

import json
import re
import sys
from collections.abc import Iterable
from math import log2, prod
from pathlib import Path

import numpy as np
import psutil
import torch

from glamlib.data.datasets import FINDERS, dataset_of, load_dataset, load_volumes
from glamlib.data.transforms import VOID, TrainTransform
from glamlib.errors import InputError
from glamlib.runs.places import run_folder
from glamlib.runs.records import to_do
from glamlib.runs.run import identity_of, run_one
from glamlib.studies.parameters import RunParameters
from glamlib.studies.study import Profile, Study, Variant, with_changes
from glamlib.training.datasets import PARTS, Parts, data_options, run_parts
from glamlib.training.loop import resolve_device
from glamlib.training.tasks import check_run

PROFILE = "own"
EPOCHS, STEPS = 50, (500, 20_000)  # a network from random weights gains little later; fewer steps teach it nothing
LONGEST = 512  # of a crop, and of an image's short side: the published recipe's
PIXELS = 2**20  # of a step: four crops of 512 x 512, a quarter of the published batch
# For models of nano size, and for larger ones: voxels of a patch (64 x 64 x 64, and nnFormer's own 64 x 128 x 128),
# bytes a pixel or voxel in training (measured, fp32, rounded up), and the rate, half of what served at batches of 16
VOXELS, MEMORY, RATES = (2**18, 2**20), (3_000, 10_000), (1e-3, 5e-4)
RATE_PRETRAINED = 1.5e-4
VALIDATIONS = 10  # a run: enough for a curve, few enough to cost little


def own_variants(models: str) -> dict[str, Variant]:
    """Return the variants of "MODEL,MODEL:OVERRIDE=VALUE:...", by their folders' names; InputError for doubles."""
    variants = {}
    for model in re.split(r",(?![^\[]*\])", models.replace(" ", "")):  # not at the commas of a list
        name, *overrides = model.split(":")
        label = ", ".join([name, *overrides]).replace("=", " ")
        folder = re.sub(r"[^\w.-]+", "-", model).strip("-.")
        if folder in variants:
            raise InputError(f"{models}: {model} is given twice")
        variants[folder] = Variant(label, name, with_changes({}, overrides))
    return variants


def own_study(path: Path, name: str | None, models: str, changes: Iterable[str]) -> Study:
    """Return the study of the images or volumes in a folder, and print its values; the first model is the baseline.

    Its name is the folder's unless given; ``models`` and ``changes`` as `own_variants` and `with_changes` take them.
    Raises InputError for bad models, values or data.
    """
    name, dataset = name or re.sub(r"[^\w.-]+", "_", path.resolve().name).lstrip(".") or "own", dataset_of(path)
    about = {"study": name, "variant": "-", "seed": 0, "profile": PROFILE, "model": "-", "dataset": dataset}
    about["root"] = str(path.resolve())
    values = {"data": {part: part for part in PARTS}, "augment": {}, "overrides": {}, "device": "auto"}
    values = with_changes(values | {"threads": torch.get_num_threads()}, changes)
    if fixed := sorted(values.keys() & about.keys()):
        raise InputError(f"--set {fixed[0]}: it is given by an option of its own")
    # checks what is given before other values depend on it
    checked = RunParameters.from_dict({"steps": 1, "batch_size": 1, "lr": 0.0} | about | values)
    data_options(checked)
    variants, volumes = own_variants(models), dataset == "volumes"
    # conv_unet costs as much as Nano
    large = int(not all("nano" in one.model or one.model.startswith("conv_unet") for one in variants.values()))
    on_gpu, host = resolve_device(checked.device) == "cuda", psutil.virtual_memory().total
    memory = torch.cuda.get_device_properties(0).total_memory if on_gpu else host

    # a step's patches in half of the memory
    voxels = min(VOXELS[large], memory / 2 / values.get("batch_size", 2) / MEMORY[large])
    items, held, augment = _volumes(checked, voxels) if volumes else _images(checked)
    values |= {"augment": augment | values["augment"], "data": {"in_memory": held < host / 4} | values["data"]}
    usual = {"batch_size": 2}  # nnU-Net's and nnFormer's
    if not volumes:
        pixels = prod(TrainTransform.from_dict(values["augment"]).crop_size)
        batch = values.get("batch_size", 2 ** int(np.clip(log2(min(PIXELS / pixels, items)), 1, 4)))
        # micro-batches in half of the memory, of at least 2 images, which batch normalisation needs
        fit = max(2, memory / 2 / pixels / MEMORY[large])
        parts = next((n for n in range(1, batch // 2 + 1) if batch % n == 0 and batch <= n * fit), 1)
        usual = {"batch_size": batch, "accumulate": parts}
    steps = values.get("steps", int(np.clip(round(EPOCHS * items / (usual | values)["batch_size"]), *STEPS)))
    rate = RATE_PRETRAINED if checked.pretrained else RATES[large]
    usual |= {"steps": steps, "lr": rate, "warmup_steps": steps // 20}
    usual |= {"validate_every": max(1, steps // VALIDATIONS), "checkpoint_every": max(1, steps // 50)}
    if values.get("validate_every", 1) and values["data"].get("val"):
        layout = FINDERS[dataset](path)
        labels = (np.asarray(layout.read(item)[1]) for item in layout.chosen(values["data"]["val"]))
        if not any(((label >= volumes) & (label < VOID)).any() for label in labels):
            print("warning: no validation label holds a class to score: the last weights are tested", file=sys.stderr)
            values |= {"validate_every": 0, "stop_at": 0.0}
    usual |= {"precision": "bf16", "workers": min(8, checked.threads)} if on_gpu else {}

    values = usual | values
    overrides, data, augment = (values.pop(key) for key in ("overrides", "data", "augment"))
    profile, metric = Profile(data, values | {"root": about["root"]}, augment), "dice" if volumes else "miou"
    question = f"Which model segments {name} best?"
    study = Study(name, question, dataset, next(iter(variants)), overrides, variants, {PROFILE: profile}, metric)
    for run in study.runs(PROFILE):
        check_run(run)
    shown = json.dumps(values | {"augment": augment}, ensure_ascii=False)[1:-1].replace('": ', "=").replace('"', "")
    print(f"{name}: {dataset} {path}; values (change them with --set): {shown}", flush=True)
    return study


def _images(run: RunParameters) -> tuple[int, int, dict[str, object]]:
    """Return how many images there are to train on, their bytes in memory, and the published recipe's augmentation.

    The short side is resized where it is above `LONGEST`, or sizes differ (of 50 images), so that things keep a scale.
    The crop's sides are multiples of 32 within the median image and `LONGEST`.
    """
    images = load_dataset("folder", "train", root=run.root, size=run.data.get("size"))
    chosen = np.linspace(0, len(images) - 1, min(50, len(images))).astype(int).tolist()
    sizes = np.array([images[index][1].shape for index in chosen])
    size, augment = np.median(sizes, axis=0), {"cat_max_ratio": 0.75, "fill": [124, 116, 104]}
    if FINDERS["folder"](Path(run.root)).labels.sided:
        augment["flip"] = 0.0  # in a mirrored image the left one is not what is labelled "left"
    if (size.min() > LONGEST and not run.data.get("size")) or np.ptp(sizes, axis=0).any():
        short = int(np.clip(size.min(), 32, LONGEST) // 32) * 32
        augment["long_short"], size = [4 * short, short], size * short / size.min()
    held = 4 * len(images) * int(sizes.prod(1).mean())  # RGB and a label
    return len(images), held, augment | {"crop_size": (np.clip(size, 32, LONGEST) // 32 * 32).astype(int).tolist()}


def _volumes(run: RunParameters, voxels: float) -> tuple[int, int, dict[str, object]]:
    """Return the same of volumes, with a patch of their median size, in multiples of 8.

    Beyond ``voxels`` the side that covers most shrinks, again and again: nnU-Net's rule (Isensee et al., 2021).
    Volumes are rotated where voxels are nearly cubes.
    """
    options = {key: value for key, value in run.data.items() if key in ("spacing", "scales")}
    volumes = load_volumes("volumes", "train", root=run.root, **options)
    size, spacing = volumes.median_shape(), volumes.spacing(0)
    patch = -(-np.array(size) // 8) * 8
    while patch.prod() > voxels:
        patch[np.argmax(np.where(patch > 8, patch / size, 0))] -= 8
    augment = {"patch_size": patch.tolist(), "rotate": 15.0 if max(spacing) < 2 * min(spacing) else 0.0}
    held = len(volumes) * prod(size) * (4 * len(volumes.preprocessing.scales) + 1)  # fp32 and a label
    return len(volumes), held, augment | {"scale": [0.85, 1.2], "intensity": 0.1}


def run_study(study: Study, seeds: int, results: Path) -> tuple[Parts, int]:
    """Run what has no record yet, seed by seed; return the data, and how many runs could not be done."""
    runs, failed = study.runs(PROFILE, seeds), 0
    parts = run_parts(runs[0])
    left = [(run, why) for run in runs if (why := to_do(run_folder(results, run), identity_of(run, parts)))]
    print(f"{len(runs) - len(left)} of {len(runs)} runs are finished already", flush=True)
    for number, (run, why) in enumerate(left, start=len(runs) - len(left) + 1):
        print(f"run {number} of {len(runs)}, {run.variant}/seed-{run.seed}: {why}", flush=True)
        try:
            run_one(run, results, data=parts)
        except InputError as error:
            failed += 1
            print(f"failed: {run.variant}/seed-{run.seed}: {error}", file=sys.stderr)
    return parts, failed

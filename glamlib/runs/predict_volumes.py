"""Label maps of one's own volumes by a trained model: NIfTI files in the geometry of the images."""

import re
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from glamlib.data.volumes import label_file, read_channels
from glamlib.errors import InputError
from glamlib.evaluation.inference import predict_volume_classes
from glamlib.files import check_writable, write_whole
from glamlib.runs.saved_model import SavedModel
from glamlib.studies.parameters import RunParameters
from glamlib.training.tasks import task_of


def volume_files(source: Path, channels: int) -> dict[str, list[Path]]:
    """Return the files of each case that ``source`` names: a NIfTI file, or all in a folder; InputError for none.

    A case is one file, or NAME_0000, NAME_0001, ..., one for each channel, of which any one names all (nnU-Net's).
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    cases: dict[str, list[Path]] = {}
    for path in sorted((source if source.is_dir() else source.parent).glob("[!.]*")):
        match = re.fullmatch(r"((.+?)(?:_(\d{4}))?)\.nii(\.gz)?", path.name)
        if match:
            cases.setdefault(match[2] if match[3] and int(match[3]) < channels else match[1], []).append(path)
    cases = {name: paths for name, paths in cases.items() if source.is_dir() or source in paths}
    if not cases:
        raise InputError(f"{source}: no volumes; expected NIfTI files, .nii.gz or .nii")
    return cases


def predict_volumes(saved: SavedModel, run: RunParameters, source: Path, out: Path) -> tuple[int, list[str]]:
    """Write ``out/labels/NAME.nii.gz`` of every image; a broken one stops nothing.

    Its values are those of the training labels; its axes, affine and units are the image's. ``run`` says how.

    Returns the number of images and a line for each of which nothing was written. Raises InputError for a model of
    something else than volumes in files, or an ``out`` that cannot be written to.
    """
    preprocessing = saved.preprocessing
    if preprocessing is None:
        raise InputError(f"{saved.run.model}, trained on {saved.run.dataset}: not a model of volumes in files")
    task_of(run)  # raises for options of images
    channels, values = len(preprocessing.scales), np.array(preprocessing.values)
    values = values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
    cases = volume_files(source, channels)
    check_writable(out / "labels" / "probe")
    failed = []
    how = run.augment["patch_size"], run.batch_size, run.precision
    for name, paths in tqdm(cases.items(), disable=None, unit="volume"):
        try:
            stems = [path.name.removesuffix(".gz").removesuffix(".nii") for path in paths]
            if stems not in ([name], [f"{name}_{number:04}" for number in range(channels)]):
                raise InputError(f"{len(paths)} files, {', '.join(stems)}; allowed: one, or one for each channel")
            image = read_channels(paths, channels)
            item = torch.from_numpy(preprocessing.prepare(image.values, image.spacing))[None]  # (1, C, D, H, W)
            classes = predict_volume_classes(saved.model, item, *how)
        except InputError as error:
            failed.append(str(error) if str(paths[0]) in str(error) else f"{paths[0]}: {error}")
            continue
        label = preprocessing.restore(classes[0].numpy(), image.spacing, image.values.shape[1:])
        write_whole(out / "labels" / f"{name}.nii.gz", label_file(values[label], paths[0]))
    return len(cases), failed

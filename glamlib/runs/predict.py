"""Label maps of one's own images and volumes by a trained model; of images also overlays and confidence maps."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from glamlib.data.images import IMAGE_SUFFIXES, read_image
from glamlib.data.published import LABELS
from glamlib.data.volumes import label_file, read_channels
from glamlib.errors import InputError
from glamlib.evaluation.inference import batches_of_one_size, predict_classes, predict_volume_classes, view_size
from glamlib.files import check_writable, write_whole
from glamlib.runs.saved_model import SavedModel
from glamlib.studies.parameters import InferenceOptions, RunParameters
from glamlib.training.tasks import task_of

CITYSCAPES = LABELS["cityscapes"]
MADE = ".predicted"  # marks a folder that predictions were written to
_RAW_IDS = np.array(CITYSCAPES.values, np.uint8)


def image_files(source: Path) -> list[Path]:
    """Return the images that ``source`` names: the file itself, or all files of a folder that holds images, by name.

    Of a folder without images, those of its sub-folders, as Cityscapes has one for each city. InputError for none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder")
    for pattern in ("[!.]*", "[!.]*/[!.]*"):
        # also files of other names: each is predicted, or named with the reason
        files = [file for file in sorted(source.glob(pattern)) if file.is_file()]
        folders = {file.parent for file in files if file.suffix.lower() in IMAGE_SUFFIXES}
        if folders:
            return [file for file in files if file.parent in folders]
    raise InputError(f"{source}: no images; expected files {', '.join(IMAGE_SUFFIXES)}")


def in_windows(run: RunParameters, height: int, width: int) -> InferenceOptions:
    """Return how an image is predicted: as ``run.evaluate`` says, which may leave open whether whole or in windows.

    Then it is in windows of the training size, an eighth of which overlaps, if it is more than twice as high or wide:
    a network has seen nothing of such a size, and the cost of G-MSA grows with the square of the number of pixels.
    """
    options, side = InferenceOptions.from_dict(run.evaluate), run.augment.get("crop_size") or run.data.get("size")
    if "mode" in run.evaluate or side is None:  # trained on images of several sizes
        return options
    window = (side, side) if isinstance(side, int) else tuple(side)
    largest = view_size(height, width, options, max(options.scales))
    if largest[0] <= 2 * window[0] and largest[1] <= 2 * window[1]:
        return options
    return replace(options, mode="slide", crop=window, stride=tuple(-(-side * 7 // 8) for side in window))


def _open_out(out: Path, kinds: list[str]) -> None:
    """Make and mark the folder ``out``, and one in it for each of ``kinds``, of which "labels" is one.

    InputError where they cannot be written to, and where labels that no prediction wrote may be overwritten: in a
    folder with a table of classes, or with labels and without the mark.
    """
    place = out.resolve()
    table = any((place / name).exists() for name in ("classes.json", "dataset.json"))
    if table or (not (place / MADE).exists() and any(place.glob("labels/[!.]*"))):
        raise InputError(f"{out}: a data set, whose own labels/ would be overwritten; give another folder as --out")
    for kind in kinds:
        check_writable(out / kind / "probe")
    write_whole(out / MADE, "")


def predict_files(
    saved: SavedModel, run: RunParameters, source: Path, out: Path, raw_ids: bool = False, confidence: bool = False
) -> tuple[int, list[str]]:
    """Write ``out/labels/NAME.png`` and ``out/overlays/NAME.png`` of every image; a broken image stops nothing.

    NAME begins with the image's sub-folder of ``source`` (`image_files`), if it lies in one. A label map is a
    palettised PNG of the image's size, its values class numbers; an overlay is the image, half covered by the classes'
    colours. ``confidence``, ``raw_ids``: as in the command `predict`. ``run`` says how (`in_windows`).

    Returns the number of images and a line for each of which nothing was written. Raises InputError for a model of
    something else than RGB images, and an ``out`` that cannot be written to or holds labels of another origin.
    """
    files, base = image_files(source), source if source.is_dir() else source.parent
    names = {file: file.relative_to(base).with_suffix("") for file in files}
    if raw_ids and tuple(saved.classes) != CITYSCAPES.classes:
        raise InputError(f"raw ids: {saved.run.model} was trained on {saved.run.dataset}, not on Cityscapes' classes")
    if saved.model.config.ndim != 2 or saved.model.in_channels != 3:
        raise InputError(f"{saved.run.model} with {saved.model.in_channels} channel(s): not a model of RGB images")
    _open_out(out, ["labels", "overlays"] + ["raw_ids"] * raw_ids + ["confidence"] * confidence)
    failed, taken = [], {}  # ``taken``: files by name
    told, palette = "mode" in run.evaluate, np.array(saved.palette, np.uint8)

    def readable() -> Iterator[tuple[Path, Tensor]]:
        for file in tqdm(files, disable=None, unit="image"):
            try:
                if names[file] in taken:
                    raise InputError(f"{file}: has the same name as {taken[names[file]].name}")
                if raw_ids:
                    _server_name(file.stem)
                image = read_image(file)
            except InputError as error:
                failed.append(str(error))
                continue
            taken[names[file]] = file
            yield file, image

    for batch in batches_of_one_size(readable(), run.batch_size):
        images = torch.stack([image for _, image in batch])  # (B, 3, H, W)
        size = tuple(images.shape[2:])
        options = in_windows(run, *size)
        if options.mode == "slide" and not told:
            told = True
            window, like = "x".join(map(str, options.crop)), f"{batch[0][0].name} ({'x'.join(map(str, size))})"
            where = f"in windows of the training size, {window}; --whole predicts them whole"
            tqdm.write(f"images like {like} are predicted {where}")
        try:
            maps = predict_classes(saved.model, images, options, run.precision, confidence)
        except InputError as error:
            failed += [f"{file}: {error}" for file, _ in batch]
            continue
        for (file, image), planes in zip(batch, maps.view(len(batch), -1, *size), strict=True):
            classes, *certain = planes.numpy().astype(np.uint8)
            labels = Image.fromarray(classes)
            labels.putpalette(palette.tobytes())  # makes it palettised
            photo = Image.fromarray(image.permute(1, 2, 0).numpy())
            overlay, name = Image.blend(photo, Image.fromarray(palette[classes]), 0.5), names[file]
            pictures = {f"labels/{name}.png": labels, f"overlays/{name}.png": overlay}
            if certain:
                pictures[f"confidence/{name}.png"] = Image.fromarray(certain[0])
            if raw_ids:
                pictures[f"raw_ids/{name.with_name(_server_name(file.stem))}"] = Image.fromarray(_RAW_IDS[classes])
            for place, picture in pictures.items():
                content = io.BytesIO()
                picture.save(content, "PNG")
                write_whole(out / place, content.getvalue())
    return len(files), failed


def _server_name(name: str) -> str:
    """Return the name that the server's evaluation (evalPixelLevelSemanticLabeling.py) finds for an image."""
    match = re.fullmatch(r"([^_]+_\d{6}_\d{6})(_.*)?", name)
    if match is None:
        raise InputError(f"image {name!r} has no Cityscapes name; allowed: CITY_SEQUENCE_FRAME, of six digits each")
    return f"{match[1]}_labelIds.png"


def volume_files(source: Path, channels: int) -> dict[str, list[Path]]:
    """Return the files of each case that ``source`` names: a NIfTI file, or all in a folder; InputError for none.

    A case is one file, or NAME_0000, NAME_0001, ..., one for each channel, of which any one names all (nnU-Net's).
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    cases: dict[str, list[Path]] = {}
    for path in sorted((source if source.is_dir() else source.parent).glob("[!.]*")):
        if match := re.fullmatch(r"((.+?)(?:_(\d{4}))?)\.nii(\.gz)?", path.name):
            cases.setdefault(match[2] if match[3] and int(match[3]) < channels else match[1], []).append(path)
    cases = {name: paths for name, paths in cases.items() if source.is_dir() or source in paths}
    if not cases:
        raise InputError(f"{source}: no volumes; expected NIfTI files, .nii.gz or .nii")
    return cases


def predict_volumes(saved: SavedModel, run: RunParameters, source: Path, out: Path) -> tuple[int, list[str]]:
    """Write ``out/labels/NAME.nii.gz`` of every image; a broken one stops nothing.

    Its values are those of the training labels; its axes, affine and units are the image's. Else as `predict_files`.
    """
    preprocessing = saved.preprocessing
    if preprocessing is None:
        raise InputError(f"{saved.run.model}, trained on {saved.run.dataset}: not a model of volumes in files")
    task_of(run)  # raises for options of images
    channels, values = len(preprocessing.scales), np.array(preprocessing.values)
    values = values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
    cases = volume_files(source, channels)
    _open_out(out, ["labels"])
    failed = []
    how = run.augment["patch_size"], run.batch_size, run.precision
    for name, paths in tqdm(cases.items(), disable=None, unit="volume"):
        try:
            stems = [path.name.removesuffix(".gz").removesuffix(".nii") for path in paths]
            if stems not in ([name], [f"{name}_{number:04}" for number in range(channels)]):
                raise InputError(f"{', '.join(stems)}: allowed: one file, or one for each of {channels} channel(s)")
            image = read_channels(paths, channels)
            item = torch.from_numpy(preprocessing.prepare(image.values, image.spacing))[None]  # (1, C, D, H, W)
            classes = predict_volume_classes(saved.model, item, *how)
        except InputError as error:
            failed.append(str(error) if str(paths[0]) in str(error) else f"{paths[0]}: {error}")
            continue
        label = preprocessing.restore(classes[0].numpy(), image.spacing, image.values.shape[1:])
        write_whole(out / "labels" / f"{name}.nii.gz", label_file(values[label], paths[0]))
    return len(cases), failed

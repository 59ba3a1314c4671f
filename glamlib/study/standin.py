"""Stand-ins for ADE20K and Cityscapes where these are absent: CamVid's pictures in their layout, size and format.

What a loader does with a file depends on its format and its pixels, so its speed can be told without the real set. It
is a little too fast: pictures that were enlarged are smoother than real ones, and their files smaller.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from glamlib.data.camvid import CamVid
from glamlib.data.cityscapes import RAW_IDS
from glamlib.errors import one_of

VOID_STORED = 0  # in the label files of both
# Of the sets: (height, width) of a picture; ADE20K's differ, and most have a short side of 512.
SIZES = {"ade20k": (512, 683), "cityscapes": (1024, 2048)}
STORED: Mapping[str, np.ndarray] = {"ade20k": np.arange(1, 151), "cityscapes": np.array(RAW_IDS)}


def _places(name: str, root: Path, number: int) -> tuple[Path, Path]:
    """Return where the picture and the label of training item ``number``, from 1, lie."""
    if name == "ade20k":
        stem = f"ADE_train_{number:08}"
        return root / f"images/training/{stem}.jpg", root / f"annotations/training/{stem}.png"
    stem = f"aachen_{number:06}_000019"
    return (
        root / f"leftImg8bit/train/aachen/{stem}_leftImg8bit.png",
        root / f"gtFine/train/aachen/{stem}_gtFine_labelIds.png",
    )


def write_standin(name: str, camvid: CamVid, root: Path, count: int) -> None:
    """Write ``count`` training pairs of "ade20k" or "cityscapes" below ``root``, from the pictures of ``camvid``.

    CamVid's classes become the first 11 of the set. Raises InputError for another name or a bad CamVid file.
    """
    if name not in SIZES:
        raise one_of("set to stand in for", name, SIZES)
    height, width = SIZES[name]
    for number in range(1, count + 1):
        image, label = camvid[(number - 1) % len(camvid)]
        table = np.full(256, VOID_STORED, np.uint8)
        table[: len(camvid.classes)] = STORED[name][: len(camvid.classes)]
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BICUBIC)
        values = Image.fromarray(table[label.numpy()]).resize((width, height), Image.Resampling.NEAREST)
        for place, content in zip(_places(name, root, number), (picture, values), strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            content.save(place, quality=95)  # of JPEG alone

"""NIfTI files for tests: single volumes, and folders laid out as hippocampus is."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

REAL = Path(os.environ.get("GLAM_DATA") or Path(__file__).parents[2] / "shared" / "data")
NAME = "hippocampus_001.nii.gz"


def needs(name):
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"needs the real {name}: set GLAM_DATA")


def save(path, values, affine=None, dtype=np.int16, unit="mm"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(values).astype(dtype), np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)


def add_case(images, labels, name, shape=(6, 7, 8), highest=2, label_name=None):
    """Save a random image and a label with all values 0..highest."""
    rng = np.random.default_rng(len(name))
    save(images / f"{name}.nii.gz", rng.integers(1, 100, shape))
    values = np.resize(np.arange(highest + 1), shape)
    save(labels / f"{label_name or name}.nii.gz", values, dtype=np.uint8)


def hippocampus(root, count=10):
    for number in range(1, count + 1):
        add_case(root / "imagesTr", root / "labelsTr", f"hippocampus_{number:03}")
    return root


def names(volumes):
    return [volumes.name(index) for index in range(len(volumes))]


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def own_volumes(root, version, channels, count=10, labels=None, shape=(6, 7, 8), spacing=lambda number: (1, 1, 1)):
    """Make a folder of the Decathlon's layout (channels are a file's fourth axis) or of nnU-Net's (a file each)."""
    labels = labels or {"background": 0, "a": 1, "b": 2}
    numbered = {str(number): name for number, name in enumerate(channels)}
    for number in range(1, count + 1):
        rng, name, affine = np.random.default_rng(number), f"case-{number:02}", np.diag([*spacing(number), 1.0])
        images = rng.integers(1, 100, (*shape, len(channels)))
        if version == "decathlon":
            save(root / "imagesTr" / f"{name}.nii.gz", images, affine)
        else:
            for channel in range(len(channels)):
                save(root / "imagesTr" / f"{name}_{channel:04}.nii.gz", images[..., channel], affine)
        save(root / "labelsTr" / f"{name}.nii.gz", np.resize(list(labels.values()), shape), affine, dtype=np.uint8)
    if version == "decathlon":
        table = {"modality": numbered, "labels": {str(value): name for name, value in labels.items()}}
        table["training"] = [{"image": f"./imagesTr/case-{n:02}.nii.gz"} for n in range(1, count + 1)]
    else:
        table = {"channel_names": numbered, "labels": labels, "numTraining": count, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(table))
    return root

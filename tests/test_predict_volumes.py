"""Label maps of volumes: the geometry of the image, whatever it is; channels; what is refused."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import refused_by_main
from nifti_files import cut, own_volumes, save
from torch import Tensor, nn

from glamlib.cli import main
from glamlib.data.volumes import Preprocessing
from glamlib.errors import InputError
from glamlib.runs.predict import predict_volumes
from glamlib.runs.run import run_one
from glamlib.runs.saved_model import SavedModel, load_model, save_model
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import run_data
from glamlib.zoo import create_model


class Bright(nn.Module):
    """Class 1 where the last channel is bright, class 2 where it is very bright."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.level = channels, 3, nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, -1:]
        return torch.cat([self.level - bright, bright - self.level, 2 * bright - 1.5 - self.level], dim=1)


def saved(channels: int = 1, spacing: tuple | None = (1.5, 1.0, 1.2), values: tuple = (0, 2, 700)) -> SavedModel:
    run = RunParameters(
        *("own", "model", 0, "cpu", "nnformer_nano", "volumes", 1, 2, 0.1), augment={"patch_size": [16, 24, 16]}
    )
    unchanged = (-10.0, 10.0, 0.0, 1.0)
    preprocessing = Preprocessing(values, (unchanged,) * channels, spacing)
    return SavedModel(Bright(channels), run, ("background", "a", "b"), ((0, 0, 0),) * 3, preprocessing)


def turned(angle: float, flips: tuple = (1, 1, 1), zooms: tuple = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Return an oblique affine: rotated about two axes, mirrored, anisotropic, somewhere."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return nib.affines.from_matvec(rotation @ np.diag(np.multiply(flips, zooms)), (-37, 12, 80))


PERMUTED = turned(20, (1, -1, 1), (0.7, 2.5, 1.1))[:, [2, 0, 1, 3]]
AFFINES = {
    "plain": (np.eye(4), "mm"),
    "flipped": (turned(0, (-1, -1, 1)), "mm"),
    "oblique": (turned(17, zooms=(0.9, 1.3, 2.2)), "mm"),
    "all": (PERMUTED, "mm"),
    "micrometres": (np.diag([1000, 1000, 1000, 1]) @ PERMUTED, "micron"),
}


@pytest.mark.parametrize("spacing", [None, (1.5, 1.0, 1.2)], ids=["own spacing", "resampled"])
@pytest.mark.parametrize("kind", AFFINES)
def test_a_label_map_has_the_geometry_of_its_image(tmp_path, kind, spacing):
    affine, unit = AFFINES[kind]
    shape, unit_mm = (23, 30, 27), 1000.0 if unit == "micron" else 1.0
    places = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)) / unit_mm  # (x, y, z, 3) in mm
    centre = places.mean((0, 1, 2)) + np.array([2.0, -3.0, 1.5])
    outer = np.linalg.norm((places - centre) / (6, 4.5, 5), axis=-1) < 1
    inner = np.linalg.norm(places - centre - (1.5, 0.5, -1), axis=-1) < 3
    image = nib.Nifti1Image((outer + 1.0 * inner).astype(np.float32), affine)
    image.set_sform(affine, "mni")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units(unit)
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in" / "a.nii.gz")

    model = saved(spacing=spacing)
    assert predict_volumes(model, model.run, tmp_path / "in", tmp_path) == (1, [])
    found = nib.load(tmp_path / "labels" / "a.nii.gz")
    assert found.shape == shape
    assert np.array_equal(found.affine, nib.load(tmp_path / "in" / "a.nii.gz").affine)
    for field in ("sform_code", "qform_code", "pixdim", "xyzt_units"):
        assert np.array_equal(found.header[field], image.header[field]), field
    values = np.asanyarray(found.dataobj)
    assert values.dtype.kind in "iu"
    assert set(np.unique(values)) == {0, 2, 700}
    for value, truth in ((2, outer), (700, inner)):
        guess = values >= value
        place = nib.affines.apply_affine(found.affine, np.argwhere(guess)).mean(0) / unit_mm
        assert place == pytest.approx(places[truth].mean(0), abs=0.25)
        assert 2 * (guess & truth).sum() / (guess.sum() + truth.sum()) > (0.85 if spacing else 0.999)


def test_channels_come_in_one_file_or_in_one_each(tmp_path):
    values = np.random.default_rng(0).random((10, 9, 8, 2)).astype(np.float32) * 3
    for channel in range(2):
        save(tmp_path / "each" / f"b c_{channel:04}.nii.gz", values[..., channel], dtype=np.float32)
    save(tmp_path / "one" / "b c.nii", values, dtype=np.float32)
    model, maps = saved(2, None), []
    sources = (tmp_path / "each", tmp_path / "each" / "b c_0001.nii.gz", tmp_path / "one", tmp_path / "one" / "b c.nii")
    for number, source in enumerate(sources):
        out = tmp_path / str(number)
        assert predict_volumes(model, model.run, source, out) == (1, [])
        maps.append(np.asanyarray(nib.load(out / "labels" / "b c.nii.gz").dataobj))
    expected = np.array([0, 2, 700])[model.model(torch.from_numpy(values).permute(3, 0, 1, 2)[None])[0].argmax(0)]
    assert all(np.array_equal(found, expected) for found in maps)
    for _ in range(2):  # its own predictions are overwritten, a data set's labels are not
        assert predict_volumes(model, model.run, sources[0], tmp_path) == (1, [])
    (tmp_path / "0" / "dataset.json").touch()
    save(tmp_path / "one" / "labels" / "b c.nii.gz", values[..., 0])
    for number, out in enumerate((tmp_path / "0", tmp_path / "one")):
        with pytest.raises(InputError, match="give another folder"):
            predict_volumes(model, model.run, sources[2 * number], out)


def test_broken_files_are_named_and_stop_nothing(tmp_path):
    folder = tmp_path / "in"
    for name in ("a", "b_0000", "c_0042", "d", "d_0000", "e"):
        save(folder / f"{name}.nii.gz", np.arange(60).reshape(5, 4, 3))
    cut(folder / "a.nii.gz")
    save(folder / "e.nii.gz", np.ones((5, 4, 3, 2)))
    (folder / "dataset.json").write_text("{}")
    model = saved()
    count, failed = predict_volumes(model, model.run, folder, tmp_path / "out")
    assert count == 5
    assert sorted(file.name for file in (tmp_path / "out" / "labels").iterdir()) == ["b.nii.gz", "c_0042.nii.gz"]
    needles = ("a.nii.gz: cannot be read", "d.nii.gz: d, d_0000: allowed: one file", "4 axes")
    for line, needle in zip(failed, needles, strict=True):
        assert needle in line
        assert str(folder) in line


@pytest.mark.parametrize(
    ("source", "change", "needle"),
    [
        ("nowhere", {}, "no such file or folder"),
        ("empty", {}, "no volumes; expected NIfTI files"),
        ("text.txt", {}, "no volumes"),
        ("empty", {"preprocessing": None}, "not a model of volumes in files"),
        ("empty", {"run": replace(saved().run, evaluate={"flip": True})}, "of images alone"),
    ],
)
def test_what_cannot_be_predicted_is_refused(tmp_path, source, change, needle):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    model = replace(saved(), **change)
    with pytest.raises(InputError, match=needle):
        predict_volumes(model, model.run, tmp_path / source, tmp_path / "out")


def test_from_a_folder_to_label_maps_by_the_command_line(tmp_path, capsys):
    """Trained, stored, read again and applied: two channels, labels 0, 5 and 9, spacings that differ."""
    labels, channels = {"background": 0, "left part": 5, "rest": 9}, ("T1", "CT")
    spacing = {"shape": (12, 14, 10), "spacing": lambda number: (1, 1 + number % 3, 1)}
    root = own_volumes(tmp_path / "data", "nnunet", channels, 8, labels, **spacing)
    run = RunParameters(
        *("own", "small", 0, "cpu", "glam_nnformer_nano", "volumes", 2, 2, 1e-3),
        root=str(root),
        data={"train": "train", "val": "val", "test": "test"},
        augment={"patch_size": [8, 8, 8]},
        overrides={"embed_dim": 8, "depths": [2], "num_heads": [2]},
    )
    weights = tmp_path / "weights.safetensors"
    record = json.loads(run_one(run, tmp_path / "results", weights).read_text())
    # scores are of the voxels of the label files, in mm
    sizes = [np.prod(nib.load(file).shape) for file in (root / "labelsTr").glob("*")]
    assert np.sum(record["metrics"]["confusion"]) == len(record["metrics"]["cases"]) * sizes[0]
    prepared = load_model(weights).preprocessing
    assert prepared.values == (0, 5, 9)
    assert (prepared.scales[0], len(prepared.scales[1])) == (None, 4)
    (root / "imagesTr" / "broken.nii.gz").write_bytes(b"x")
    arguments = ["predict", str(weights), str(root / "imagesTr"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert f"8 of 9 volume(s) in {tmp_path / 'out'}" in out
    assert "broken.nii.gz" in err
    for label in (root / "labelsTr").glob("*"):
        found, truth = nib.load(tmp_path / "out" / "labels" / label.name), nib.load(label)
        assert found.shape == truth.shape
        assert np.allclose(found.affine, truth.affine)
        assert set(np.unique(found.dataobj)) <= {0, 5, 9}
    assert main([*arguments, "--confidence"]) == 2


def test_other_volumes_are_evaluated_as_those_of_training_were_prepared(tmp_path, monkeypatch):
    """Of CT, the second folder's own values would give other scales, and its voxels another spacing."""
    own_volumes(tmp_path / "first", "nnunet", ["CT"])
    own_volumes(tmp_path / "second", "nnunet", ["CT"], spacing=lambda number: (1, 1, 3))
    for file in (tmp_path / "second" / "imagesTr").iterdir():
        image = nib.load(file)
        values = np.asarray(image.dataobj) * 7
        image.uncache()
        save(file, values, image.affine)
    weights = tmp_path / "w.safetensors"
    run = replace(saved().run, root=str(tmp_path / "first"), data={"train": "train", "test": "test"}, steps=1)
    run = replace(run, model="glam_nnformer_nano", augment={"patch_size": [8, 8, 8]})
    run_one(run, tmp_path / "results", weights)
    seen = []
    monkeypatch.setattr("glamlib.runs.saved_model.run_data", lambda *asked: seen.append(run_data(*asked)) or seen[-1])
    assert main(["evaluate", str(weights), "--data", str(tmp_path / "second")]) == 0
    assert seen[0].preprocessing == load_model(weights).preprocessing
    assert seen[0].preprocessing.scales != (None,)


def test_channels_in_another_order_are_refused(tmp_path, capsys):
    root, file = own_volumes(tmp_path / "own", "nnunet", ["T1", "T2"]), tmp_path / "w.safetensors"
    model = create_model("nnformer_nano", num_classes=3, in_channels=2)
    run = replace(saved().run, data={"train": "train", "test": "test"})
    save_model(file, replace(saved(2), model=model, run=run, channels=("T2", "T1")))
    refused_by_main(
        capsys, ["evaluate", str(file), "--data", str(root)], "channels ('T2', 'T1'); the data have another order: "
    )

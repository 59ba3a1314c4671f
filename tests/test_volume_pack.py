"""Packs of volumes: the same items as from the NIfTI files, one clear error for a bad one, runs that need no more."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from glamlib.data.check import check_data
from glamlib.data.volumes.brains import brain_labels
from glamlib.data.volumes.dataset import InMemoryVolumes
from glamlib.data.volumes.pack import main, pack_volumes, smallest
from glamlib.data.volumes.packed import differences, sums
from glamlib.data.volumes.registry import has_volumes, load_volumes
from glamlib.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("GLAM_DATA") or REPOSITORY.parent / "shared" / "data")


def save(path: Path, values: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-spacing[2], spacing[1], spacing[0], 1.0])), path)


def hippocampus(root: Path) -> Path:
    """Save five cases (w, h, d): whole numbers as floats, fractions, signed, larger than 16 bits, doubles."""
    rng = np.random.default_rng(0)
    shape = (21, 20, 22)
    images = (
        rng.integers(0, 256, shape).astype(np.float32),
        rng.normal(50, 30, shape).astype(np.float32),
        rng.integers(-500, 3000, shape).astype(">i2"),
        rng.integers(0, 1 << 20, shape).astype(np.int32),
        rng.normal(0, 1e6, shape),
    )
    for number, image in enumerate(images, start=1):
        name = f"hippocampus_{number:03}.nii.gz"
        save(root / "imagesTr" / name, image, (2.0, 0.5, 1.0 / 3.0))
        label = np.zeros(shape, (np.uint8, np.float64)[number % 2])
        label[5:12, 6:14, 4:10], label[12:16, 6:14, 4:10] = 1, 2
        save(root / "labelsTr" / name, label, (2.0, 0.5, 1.0 / 3.0))
    return root


def brains(root: Path) -> Path:
    rng = np.random.default_rng(0)
    values = [value for value, number in brain_labels(sides=True).numbers.items() if number]
    for name in ("1000", "1001", "1003"):
        label = np.zeros((40, 36, 34), np.uint8)
        inner = label[2:-2, 2:-2, 2:-2]
        inner[:] = np.resize(np.repeat(rng.permutation(values), 3), inner.shape[0])[:, None, None]
        save(root / "images" / f"{name}.nii.gz", (label // 2 + rng.integers(0, 9, label.shape)).astype(np.uint8))
        save(root / "labels" / f"{name}.nii.gz", label)
    (root / "train.txt").write_text("1000\n1001\n")
    (root / "test.txt").write_text("1003\n")
    return root


def same(one: object, other: object) -> None:
    """Fail unless two data sets are the same in all that is asked of them."""
    assert len(one) == len(other)
    for attribute in ("classes", "palette", "ignore_index", "sided", "left_right_axis"):
        assert getattr(one, attribute) == getattr(other, attribute)
    for index in range(len(one)):
        assert one.name(index) == other.name(index)
        assert one.spacing(index) == other.spacing(index)
        for a, b in zip(one[index], other[index], strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    pack_volumes("hippocampus", hippocampus(tmp_path / "source"), tmp_path / "hippocampus.zip")
    return tmp_path / "hippocampus.zip"


def test_a_pack_gives_the_items_of_the_files(tmp_path: Path, pack: Path) -> None:
    for split in ("train", "val"):
        for spacing in (None, (2.0, 1.0, 1.0)):
            one, other = (
                load_volumes("hippocampus", split, root=root, spacing=spacing) for root in (tmp_path / "source", pack)
            )
            same(one, other)
            for case, packed in zip(one.pairs, other.pairs, strict=True):  # the values too, before normalisation
                for a, b in zip(case.read()[:2], packed.read()[:2], strict=True):
                    assert np.array_equal(a, b)
                assert packed.read()[0].dtype == case.read()[0].dtype.newbyteorder("=")
    assert len(load_volumes("hippocampus", "train", root=pack)) == 4


def test_one_pack_serves_sides_and_groups(tmp_path: Path) -> None:
    source = brains(tmp_path / "source")
    pack_volumes("brains", source, tmp_path / "brains.zip")
    for split in ("train", "test"):
        for sides in (False, True):
            same(*(load_volumes("brains", split, root=r, sides=sides) for r in (source, tmp_path / "brains.zip")))


@pytest.mark.skipif(not (REAL / "brains" / "images").is_dir(), reason="needs the real brains: set GLAM_DATA")
def test_a_real_brain_is_the_same_and_small(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
        (source / folder / "1003.nii.gz").symlink_to(REAL / "brains" / folder / "1003.nii.gz")
    (source / "train.txt").write_text("")
    (source / "test.txt").write_text("1003\n")
    pack_volumes("brains", source, tmp_path / "brains.zip")
    same(*(load_volumes("brains", "test", root=root, sides=True) for root in (source, tmp_path / "brains.zip")))
    assert (tmp_path / "brains.zip").stat().st_size < 45e6 / 35  # all 35 in 45 MB


def test_a_pack_is_found_where_there_is_no_folder(tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    assert has_volumes("hippocampus")
    assert load_volumes("hippocampus", "val").pairs[0].image == pack / "images" / "hippocampus_005.npy"
    (tmp_path / "source").rename(tmp_path / "hippocampus")
    assert load_volumes("hippocampus", "val").pairs[0].image.suffixes == [".nii", ".gz"]
    pack.unlink()
    assert has_volumes("hippocampus")


def test_a_pack_can_be_checked(pack: Path) -> None:
    report = check_data("hippocampus", pack)
    assert report.problems == [f"{pack}: 5 cases; hippocampus has 260"]
    assert report.splits["train"].pairs == 4
    with pytest.raises(InputError, match="no such folder"):
        check_data("camvid", pack)


def test_the_same_data_make_the_same_bytes(tmp_path: Path, pack: Path) -> None:
    assert main(["hippocampus", str(tmp_path / "source"), str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "again.zip").read_bytes() == pack.read_bytes()


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_differences_are_undone(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, np.iinfo(dtype).max, (4, 5, 6), dtype=dtype, endpoint=True)
    assert np.array_equal(sums(differences(values)), values)
    assert sums(differences(values)).dtype == values.dtype
    z, y, x = 2, 3, 4
    expected = int(values[z, y, x]) - int(values[z, y, x - 1]) - int(values[z, y - 1, x]) + int(values[z, y - 1, x - 1])
    assert int(differences(values)[z, y, x]) == expected % (int(np.iinfo(dtype).max) + 1)


def test_the_smallest_type_that_holds_all() -> None:
    for values, expected in (
        (np.array([0.0, 255.0]), "uint8"),
        (np.array([-1, 100], np.int16), "int8"),
        (np.array([-1.0, 200.0], np.float32), "int16"),
        (np.array([0, 70000], np.int64), "uint32"),
        (np.array([0.5, 3.0], np.float32), "float32"),
        (np.array([0.0, 1e30]), "float64"),
        (np.array([2**63 + 1], np.uint64), "uint64"),
    ):
        found = smallest(values)
        assert found.dtype == expected
        assert np.array_equal(found, values)


# Bad packs


def rewrite(path: Path, member: str, content: bytes | None) -> None:
    """Replace a member of a zip file, or leave it out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


def retell(path: Path, **changes: object) -> None:
    """Change entries of the table."""
    with zipfile.ZipFile(path) as archive:
        table = json.loads(archive.read("pack.json"))
    rewrite(path, "pack.json", json.dumps(table | changes).encode())


def retell_case(path: Path, **changes: object) -> None:
    with zipfile.ZipFile(path) as archive:
        cases = json.loads(archive.read("pack.json"))["cases"]
    cases["hippocampus_001"] |= changes
    retell(path, cases=cases)


BAD_PACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "cannot be read as a pack"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a pack"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "imagesTr"),
    "text": (lambda path: path.write_text("volumes"), "cannot be read as a pack"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-300]), "cannot be read as a pack"),
    "another zip": (lambda path: rewrite(path, "pack.json", None), "no pack of volumes; python -m glamlib"),
    "no JSON": (lambda path: rewrite(path, "pack.json", b"{"), "cannot be read as a pack"),
    "a list": (lambda path: rewrite(path, "pack.json", b"[]"), "no pack of volumes"),
    "another format": (lambda path: retell(path, format="glam"), "no pack of volumes"),
    "a later version": (lambda path: retell(path, version=2), "a pack of version 2; allowed: 1"),
    "another set": (lambda path: retell(path, dataset="brains"), "a pack of 'brains'; wanted: hippocampus"),
    "no cases": (lambda path: retell(path, cases=None), "pack.json cannot be used"),
    "no splits": (lambda path: retell(path, splits=[]), "pack.json cannot be used"),
    "a split of others": (lambda path: retell(path, splits={"train": ["a"]}), "train: no image and label of a"),
    "a negative spacing": (lambda path: retell_case(path, spacing=[1, -1, 1]), "three mm above 0"),
    "two axes": (lambda path: retell_case(path, shape=[3, 4]), "pack.json cannot be used"),
    "an unknown type": (lambda path: retell_case(path, stored="picture"), "pack.json cannot be used"),
    "a type of objects": (lambda path: retell_case(path, dtype="object"), "pack.json cannot be used"),
    "a missing image": (
        lambda path: rewrite(path, "images/hippocampus_002.npy", None),
        "images/hippocampus_002.npy is in pack.json and not here",
    ),
}


@pytest.mark.parametrize("kind", BAD_PACKS)
def test_a_bad_pack_is_one_clear_error(pack: Path, kind: str) -> None:
    spoil, needle = BAD_PACKS[kind]
    spoil(pack)
    with pytest.raises(InputError) as caught:
        load_volumes("hippocampus", "train", root=pack)
    assert str(pack) in str(caught.value)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


def npy(values: np.ndarray) -> bytes:
    import io

    content = io.BytesIO()
    np.save(content, values, allow_pickle=True)
    return content.getvalue()


def flip_a_byte(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("images/hippocampus_001.npy").header_offset
    data = bytearray(path.read_bytes())
    data[start + 2000] ^= 1
    path.write_bytes(bytes(data))


BAD_MEMBERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip_a_byte, "cannot be read as a pack"),
    "no array": (lambda path: rewrite(path, "images/hippocampus_001.npy", b"array"), "cannot be read as a pack"),
    "cut short": (
        lambda path: rewrite(path, "images/hippocampus_001.npy", npy(np.zeros((22, 20, 21), "u1"))[:-9]),
        "cannot be read as a pack",
    ),
    "a pickle": (
        lambda path: rewrite(path, "images/hippocampus_001.npy", npy(np.full((22, 20, 21), {}, dtype=object))),
        "cannot be read as a pack",
    ),
    "another shape": (
        lambda path: rewrite(path, "images/hippocampus_001.npy", npy(np.zeros((2, 2, 2), "u1"))),
        "uint8 of shape (2, 2, 2); pack.json says uint8 of shape (22, 20, 21)",
    ),
    "another type": (
        lambda path: rewrite(path, "images/hippocampus_001.npy", npy(np.zeros((22, 20, 21)))),
        "float64 of shape (22, 20, 21); pack.json says uint8",
    ),
    "an unknown label": (
        lambda path: rewrite(path, "labels/hippocampus_001.npy", npy(np.full((22, 20, 21), 7, "u1"))),
        "unknown label value(s) 7; allowed: 0..2",
    ),
    "no contrast": (
        lambda path: rewrite(path, "images/hippocampus_001.npy", npy(np.zeros((22, 20, 21), "u1"))),
        "all voxels that are not 0 have one value",
    ),
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_a_bad_member_is_named(pack: Path, kind: str) -> None:
    spoil, needle = BAD_MEMBERS[kind]
    spoil(pack)
    volumes = load_volumes("hippocampus", "train", root=pack)
    with pytest.raises(InputError) as caught:
        volumes[0]
    assert f"{pack}/" in str(caught.value)
    assert "hippocampus_001.npy" in str(caught.value)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)
    volumes[1]  # the others are there


def test_packing_bad_data_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = hippocampus(tmp_path / "source"), tmp_path / "out" / "hippocampus.zip"
    for dataset, folder, file, needle in (
        ("camvid", source, out, "unknown data set of volumes 'camvid'; allowed: hippocampus"),
        ("hippocampus", source, tmp_path / "pack", "a pack must be named NAME.zip"),
        ("hippocampus", tmp_path / "nowhere", out, "nowhere: no such folder"),
        ("brains", source, out, "neither images and labels"),
    ):
        assert main([dataset, str(folder), str(file)]) == 1
        assert needle in capsys.readouterr().err
    save(source / "labelsTr" / "hippocampus_004.nii.gz", np.full((21, 20, 22), 3, np.uint8), (2.0, 0.5, 1.0 / 3.0))
    assert main(["hippocampus", str(source), str(out)]) == 1
    assert "hippocampus_004.nii.gz: unknown label value(s) 3" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        pack_volumes("hippocampus", source, tmp_path / "file" / "a.zip")


def test_files_without_nibabel_ask_for_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"_001.nii.gz: nibabel is not installed; glamlib.data.volumes.pack"):
        volumes[0]


def test_packs_are_held_in_memory(pack: Path) -> None:
    volumes = load_volumes("hippocampus", "train", root=pack)
    held = InMemoryVolumes(volumes)
    items = [volumes[index] for index in range(4)]
    pack.unlink()
    assert all(torch.equal(a, b) for i in range(4) for a, b in zip(held[i], items[i], strict=True))


# A machine that has torch, timm, einops, accelerate, safetensors, numpy, pandas, pillow, and what those need

BARE = """
import sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

present, wanted = {"glamlib"}, ["torch", "timm", "einops", "accelerate", "safetensors", "numpy", "pandas", "pillow"]
while wanted:
    name = canonicalize_name(wanted.pop())
    if name not in present:
        present.add(name)
        needed = map(Requirement, requires(name) or ())
        wanted += [n.name for n in needed if n.marker is None or n.marker.evaluate({"extra": ""})]
absent = {
    module for module, owners in packages_distributions().items()
    if not present & {canonicalize_name(owner) for owner in owners}
}
assert {"monai", "nibabel", "scipy", "fvcore", "papermill", "tyro", "seaborn", "matplotlib"} <= absent, sorted(absent)

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
for name in ("monai", "nibabel", "scipy"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} can be imported")

import json
from dataclasses import replace
from glamlib.study import studies
from glamlib.study.datasets import run_datasets
from glamlib.study.run import build_model
from glamlib.study.tasks import task_of
from glamlib.study.training import train

TINY = {
    "volumes_cues": ({"size": 16, "num_shapes": 1, "cue_size": 3, "train": 4, "test": 2}, {}),
    "volumes_hippocampus": ({}, {"patch_size": [16, 16, 16]}),
    "volumes_brains": ({}, {"patch_size": [32, 32, 32]}),
}
found = {}
for study, (data, augment) in TINY.items():
    run = studies.STUDIES[study].run("glam_1", 0, "gpu")
    run = replace(run, steps=2, batch_size=2, device="cpu", workers=0, overrides=run.overrides | {"embed_dim": 16},
                  data=run.data | data, augment=run.augment | augment)
    train_data, test_data = run_datasets(run)
    model = build_model(run, train_data)
    history, _ = train(model, train_data, run, Path(sys.argv[1]) / study)
    metrics, arrays = task_of(run).evaluate(model, test_data, run)
    found[study] = {"loss": history[-1]["loss"], "dice": metrics["dice"], "hd95_mm": metrics["hd95_mm"],
                    "cases": len(metrics["cases"]), "arrays": sorted(arrays)}
assert not {name.partition('.')[0] for name in sys.modules} & absent
print(json.dumps(found))
"""


@pytest.mark.slow
def test_runs_on_volumes_need_little_more_than_torch(tmp_path: Path, pack: Path) -> None:
    """The gpu profile at tiny size, bf16, rotation and all, from packs alone."""
    data = tmp_path / "data"
    data.mkdir()
    pack.rename(data / "hippocampus.zip")
    pack_volumes("brains", brains(tmp_path / "brains"), data / "brains.zip")
    script = tmp_path / "bare.py"
    script.write_text(BARE)
    environment = os.environ | {"GLAM_DATA": str(data), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for study, cases in (("volumes_cues", 2), ("volumes_hippocampus", 1), ("volumes_brains", 1)):
        assert np.isfinite(found[study]["loss"])
        assert 0 <= found[study]["dice"] <= 1
        assert found[study]["cases"] == cases
        assert found[study]["arrays"] == ["images", "labels", "predictions"]

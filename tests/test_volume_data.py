"""Volumes from files: what is read, what is refused, and what the data sets make of it."""

import gzip
import itertools
import json
import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from glamlib.data.check import check_data
from glamlib.data.datasets import VOLUMES, InMemoryVolumes, has_dataset, load_volumes
from glamlib.data.volume_sets import EIGHT, ORGANS, SYNAPSE_TEST, SYNAPSE_TRAIN, brain_labels
from glamlib.data.volumes import Case, FileVolumes, Labels, read_volume, resample_image, resample_label, window, z_score
from glamlib.errors import InputError
from glamlib.training.datasets import data_identity

REAL = Path(os.environ.get("GLAM_DATA") or Path(__file__).parents[2] / "shared" / "data")
FOLDERS = ("imagesTr", "labelsTr")
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


# Reading


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SLA"])
def test_every_orientation_is_read_as_the_same_volume(tmp_path, codes):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 99, (4, 5, 6))  # x, y, z
    plain = nib.Nifti1Image(values.astype(np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(plain.affine), nib.orientations.axcodes2ornt(codes))
    nib.save(plain.as_reoriented(turn), tmp_path / "a.nii.gz")
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / "a.nii.gz").affine)) == codes
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.spacing == (3.0, 2.0, 1.0)
    assert np.array_equal(volume.values, values.transpose(2, 1, 0))
    assert np.allclose(volume.affine, plain.affine)


def test_axes_of_one_behind_the_third_are_dropped_and_scaled_values_are_scaled(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    stored = np.asanyarray(nib.load(tmp_path / "a.nii").dataobj)[..., 0]
    assert np.allclose(read_volume(tmp_path / "a.nii").values, stored.T)


@pytest.mark.parametrize(("unit", "in_mm"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_spacings_are_converted_to_mm(tmp_path, unit, in_mm):
    affine = np.array([[0, 0, 0.02, 5], [0, 0.03, 0, 6], [0.04, 0, 0, 7], [0, 0, 0, 1]])
    affine[:3] /= in_mm
    save(tmp_path / "a.nii.gz", np.zeros((2, 3, 4)), affine, unit=unit)
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.spacing == pytest.approx((0.04, 0.03, 0.02))
    assert volume.affine[:3, 3] == pytest.approx([5, 6, 7])


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def spoil_middle(path):
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes(40) + data[80:])


def spoil_checksum(path):
    """Change a byte of the checksum: the file reads as if a byte of the voxels had been changed."""
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(bytes(data))


def patch(path, offset, content):
    """Overwrite bytes of the uncompressed file."""
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:offset] + content + data[offset + len(content) :]))


BAD_FILES = {
    "missing": (lambda path: path.unlink(), "cannot be read as NIfTI"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as NIfTI"),
    "text": (lambda path: path.write_bytes(b"not a volume"), "cannot be read as NIfTI"),
    "gzipped text": (lambda path: path.write_bytes(gzip.compress(b"text" * 500)), "cannot be read as NIfTI"),
    "cut short": (cut, "cannot be read as NIfTI"),
    "a wrong checksum": (spoil_checksum, "CRC"),
    "an unknown type": (lambda path: patch(path, 70, b"\xff\x00"), "data code 255"),
    "damaged": (spoil_middle, "cannot be read as NIfTI"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read as NIfTI"),
    "4D": (lambda path: save(path, np.zeros((6, 7, 8, 2))), "4 axes (6 x 7 x 8 x 2); allowed: volumes of three"),
    "2D": (lambda path: save(path, np.zeros((6, 7))), "2 axes (6 x 7)"),
    "complex": (lambda path: save(path, np.ones((6, 7, 8)), dtype=np.complex64), "type complex64"),
    "not a number": (lambda path: save(path, np.full((6, 7, 8), np.nan), dtype=np.float32), "not finite"),
    "flat affine": (lambda path: patch(path, 312, bytes(16)), "its affine maps no voxel to a place"),  # srow_z
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_bad_file_is_one_clear_error(tmp_path, kind, folder):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 3))
    path = tmp_path / folder / NAME
    spoil, needle = BAD_FILES[kind]
    spoil(path)
    with pytest.raises(InputError) as caught:
        volumes[0]
    assert str(path) in str(caught.value)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)
    volumes[1]  # the others are there


def test_an_image_of_one_value_is_named(tmp_path):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 1))
    save(tmp_path / "imagesTr" / NAME, np.full((6, 7, 8), 3))
    with pytest.raises(InputError, match=rf"{NAME}: all voxels have one value"):
        volumes[0]


SHIFTED = np.array([[1, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("shape", "affine", "needle"),
    [
        ((6, 7, 9), np.eye(4), "shape: 8 x 7 x 6 and 9 x 7 x 6 voxels"),
        ((6, 8, 7), np.eye(4), "shape: 8 x 7 x 6 and 7 x 8 x 6 voxels"),
        ((6, 7, 8), np.diag([1.0, 1.0, 1.5, 1.0]), "affine: voxels lie up to 3.5 mm apart"),
        ((6, 7, 8), SHIFTED, "up to 2 mm apart"),
        ((6, 7, 8), np.diag([-1.0, 1.0, 1.0, 1.0]), "apart"),  # mirrored
        ((6, 7, 8), np.eye(4) + 0.005 * (SHIFTED - np.eye(4)), None),  # rounded differently
    ],
)
def test_an_image_and_a_label_of_different_voxels_are_refused(tmp_path, shape, affine, needle):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 1))
    save(tmp_path / "labelsTr" / NAME, np.zeros(shape), affine)
    if needle is None:
        volumes[0]
        return
    with pytest.raises(InputError) as caught:
        volumes[0]
    assert needle in str(caught.value)
    assert f"imagesTr/{NAME} and {NAME} differ" in str(caught.value)


def test_a_label_stored_in_another_orientation_meets_its_image(tmp_path):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path, 1))
    path = tmp_path / "labelsTr" / NAME
    before = volumes[0]
    turned = nib.load(path).as_reoriented(nib.orientations.axcodes2ornt("LPI"))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    assert all(torch.equal(a, b) for a, b in zip(before, volumes[0], strict=True))


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ([0, 3, 7], "a: unknown label value(s) 3, 7; allowed: -2, 0..2, 9"),
        ([0, 0.5], "unknown label value(s) 0.5;"),
        ([0, 1.002], "unknown label value(s) 1.002;"),
        ([-1, 0], "unknown label value(s) -1;"),
        ([0, 1e9], "unknown label value(s) 1e+09;"),
        (range(3, 9), "unknown label value(s) 3, 4, 5, 6, 7, ...;"),
    ],
    ids=str,
)
def test_unknown_label_values_are_named(values, needle):
    with pytest.raises(InputError) as caught:
        Labels((), dict.fromkeys((2, 1, 0, -2, 9), 0), sided=False).decode(Path("a"), np.array(values))
    assert needle in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_class_numbers_are_those_of_the_map_also_of_near_integers(dtype):
    values = np.array([[[9, -2, 4, 9]]], dtype)
    if dtype != np.int16:
        values += np.array([5e-7, -1e-6, -9e-4, 0])  # as resampling leaves them
    found = Labels((), {4: 0, -2: 7, 9: 3}, sided=False).decode(Path("a"), values)
    assert found.tolist() == [[[3, 7, 0, 3]]]
    assert found.dtype == np.uint8


# Intensities and spacings


def test_z_score_takes_its_numbers_from_what_is_not_0():
    values = np.array([0, 0, 0, 2, 4, 6], dtype=np.uint8)
    assert z_score(values) == pytest.approx((values - 4.0) / np.sqrt(8 / 3))
    assert z_score(values).dtype == np.float32
    assert z_score(np.array([0, 5, 5])).tolist() == [-5, 0, 0]  # a mask


def test_window_clips_and_scales():
    assert window(np.array([-1000, -175, 37.5, 250, 3000]), -175, 250).tolist() == [-1, -1, 0, 1, 1]


def millimetres(shape, spacing):
    """Return the places of voxels, in mm from the volume's centre."""
    axes = ((np.arange(n) - (n - 1) / 2) * side for n, side in zip(shape, spacing, strict=True))
    return np.meshgrid(*axes, indexing="ij")


def test_resampling_samples_at_places_in_mm():
    """An image linear in mm stays what it is at every new voxel's place, whose origin is the volume's centre."""
    shape, old, new = (9, 12, 10), (3.0, 1.0, 1.5), (1.5, 1.5, 1.0)

    def ramp(shape, spacing):
        z, y, x = millimetres(shape, spacing)
        return 2 * z - y + 3 * x

    found = resample_image(ramp(shape, old), old, new)
    assert found.shape == (18, 8, 15)
    inner = (slice(2, -2),) * 3  # beyond the outermost old voxels' centres the edge is repeated
    np.testing.assert_allclose(found[inner], ramp(found.shape, new)[inner], atol=1e-3)


def test_resampled_labels_keep_their_shape_there_and_back():
    old, new = (1.0, 1.0, 1.0), (2.5, 1.3, 0.7)
    squared = sum(place**2 for place in millimetres((40, 40, 40), old))
    label = (squared <= 12**2).astype(np.uint8) * 3 + (squared <= 6**2)
    there = resample_label(label, old, new)
    assert there.shape == (16, 31, 57)
    assert set(np.unique(there)) == {0, 3, 4}
    back = resample_label(there, new, old)
    for number in (3, 4):
        one, two = label == number, back == number
        assert 2 * np.count_nonzero(one & two) / (one.sum() + two.sum()) > 0.9
        assert np.count_nonzero(there == number) * np.prod(new) == pytest.approx(one.sum(), rel=0.1)  # mm^3


def test_half_the_voxels_a_side_is_the_majority():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    label[:2, :2, :2] = 1
    label[2:, 2:, 2:].flat[:3] = 1  # 3 of 8
    expected = np.zeros((2, 2, 2), dtype=np.uint8)
    expected[0, 0, 0] = 1
    assert np.array_equal(resample_label(label, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)), expected)


def test_a_case_that_is_not_read_still_tells_two_data_sets_apart(tmp_path):
    hippocampus(tmp_path, 100)
    files = [tmp_path / folder / f"hippocampus_{number:03}.nii.gz" for number in range(1, 101) for folder in FOLDERS]
    cases = [Case(image.name, image, label) for image, label in zip(files[::2], files[1::2], strict=True)]
    volumes = FileVolumes(cases, Labels(("a", "b", "c"), {0: 0, 1: 1, 2: 2}, False), z_score)
    before = data_identity(volumes)
    assert data_identity(volumes) == before
    save(cases[2].image, np.zeros((6, 7, 8)))  # 64 of 100 cases are read, not the third
    assert data_identity(volumes) != before


def test_a_data_set_can_be_resampled(tmp_path):
    root = hippocampus(tmp_path)
    own = load_volumes("hippocampus", "train", root=root)
    volumes = load_volumes("hippocampus", "train", root=root, spacing=(2, 1, 0.5))
    image, label = volumes[0]
    assert own[0][0].shape == (1, 8, 7, 6)
    assert own.spacing(0) == own.spacing(1) == (1.0, 1.0, 1.0)  # read before, and not
    assert image.shape == (1, 4, 7, 12)
    assert label.shape == (4, 7, 12)
    assert (image.dtype, label.dtype) == (torch.float32, torch.uint8)
    assert volumes.spacing(0) == (2.0, 1.0, 0.5)
    for bad in ((1, 1), (1, 0, 1), "1 mm", (1, 1, float("nan"))):
        with pytest.raises(
            InputError, match=r"option of volumes spacing=.* must be a list \(a number from 0.01 to 100"
        ):
            load_volumes("hippocampus", "train", root=root, spacing=bad)


# The data sets


def test_hippocampus_splits(tmp_path):
    root = hippocampus(tmp_path)
    (root / "imagesTr" / f"._{NAME}").write_bytes(b"a Mac's")
    assert names(load_volumes("hippocampus", "val", root=root)) == ["hippocampus_005", "hippocampus_010"]
    assert len(load_volumes("hippocampus", "train", root=root)) == 8
    (root / "train.txt").write_text("hippocampus_002\nhippocampus_001\n")
    (root / "val.txt").write_text("hippocampus_003\n")
    volumes = load_volumes("hippocampus", "train", root=root)
    assert names(volumes) == ["hippocampus_002", "hippocampus_001"]
    assert names(load_volumes("hippocampus", "val", root=root)) == ["hippocampus_003"]
    assert volumes.classes == ("background", "anterior", "posterior")
    assert not volumes.sided
    (root / "val.txt").write_text("hippocampus_003 hippocampus_001 hippocampus_999")
    with pytest.raises(InputError) as caught:
        load_volumes("hippocampus", "train", root=root)
    assert "hippocampus_001 is in the splits 2 times" in str(caught.value)
    assert "no image and label of hippocampus_999" in str(caught.value)
    (root / "val.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"val.txt: cannot be read as text"):
        load_volumes("hippocampus", "train", root=root)


def test_the_decathlons_own_archive_is_read(tmp_path):
    root = hippocampus(tmp_path / "hippocampus" / "Task04_Hippocampus").parent
    table = {
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"./imagesTr/hippocampus_{n:03}.nii.gz", "label": "..."} for n in range(1, 11)],
    }
    file = root / "Task04_Hippocampus" / "dataset.json"
    for good in (table, {"labels": {"background": 0, "Anterior": 1, "Posterior": 2}, "numTraining": 10}):  # nnU-Net's
        file.write_text(json.dumps(good))
        assert len(load_volumes("hippocampus", "train", root=root)) == 8
    for change, needle in (
        (
            {"training": [*table["training"], {"image": "./imagesTr/hippocampus_400.nii.gz"}]},
            "hippocampus_400.nii.gz is",
        ),
        ({"labels": {"0": "background", "1": "both"}}, r"its labels are \[0, 1\]"),
        ({"training": None}, "not a Decathlon's dataset.json"),
    ):
        file.write_text(json.dumps({**table, **change}))
        with pytest.raises(InputError, match=needle):
            load_volumes("hippocampus", "train", root=root)
    file.write_text("{")
    with pytest.raises(InputError, match=r"not a Decathlon's dataset\.json"):
        load_volumes("hippocampus", "train", root=root)


def test_files_without_a_partner_and_second_files_are_named(tmp_path):
    root = hippocampus(tmp_path)
    (root / "labelsTr" / "hippocampus_002.nii.gz").unlink()
    (root / "imagesTr" / "hippocampus_003.nii.gz").unlink()
    save(root / "imagesTr" / "hippocampus_001.nii", np.zeros((6, 7, 8)))
    with pytest.raises(InputError) as caught:
        load_volumes("hippocampus", "train", root=root)
    assert f"{NAME} is the same case as hippocampus_001.nii" in str(caught.value)
    assert "image hippocampus_002.nii.gz has no label" in str(caught.value)
    assert "label hippocampus_003.nii.gz has no image" in str(caught.value)


def brains(root, layout):
    cases = {"train": ["1000", "1001"], "test": ["1003"]}
    for name in itertools.chain(*cases.values()):
        if layout == "folders":
            add_case(root / "images", root / "labels", name, highest=0)
        else:
            add_case(root, root, f"{name}_SS", highest=0, label_name=f"{name}_glm")
    if layout == "folders":
        for split, members in cases.items():
            (root / f"{split}.txt").write_text("\n".join(members))
    return root


def test_brains_in_their_layouts(tmp_path):
    volumes = load_volumes("brains", "train", root=brains(tmp_path / "a", "folders"), sides=True)
    assert names(volumes) == ["1000", "1001"]
    assert volumes.sided
    assert volumes[0][0].shape == (1, 8, 7, 6)
    with pytest.raises(InputError, match=r"13 problem\(s\): train: no image and label of 1002"):
        load_volumes("brains", "test", root=brains(tmp_path / "b", "source"))
    for number in range(1002, 1037):
        add_case(tmp_path / "b", tmp_path / "b", f"{number}_SS", highest=0, label_name=f"{number}_glm")
    assert len(load_volumes("brains", "train", root=tmp_path / "b")) == 15


@needs("brains")
def test_groups_of_brain_structures_are_those_of_the_data_sets_table():
    merged, sided = brain_labels(sides=False), brain_labels(sides=True)
    rows = [line.split("\t") for line in (REAL / "brains" / "labels_full.tsv").read_text().splitlines()[1:]]
    assert {int(value): int(group) for value, _, group, _ in rows} == merged.numbers
    assert len(merged.classes) == 14
    assert len(sided.classes) == 26
    assert not merged.sided
    assert sided.numbers.keys() == merged.numbers.keys()
    for value, name, group, _ in rows:
        found = sided.classes[sided.numbers[int(value)]]
        if "Vermal" in name or group == "0":
            assert found == "background"
        else:
            side = name.split()[0].lower() + " " if group != "13" else ""
            assert found == side + merged.classes[int(group)]


def abdomens(root, folders=("img", "label"), image="img{:04}", label="label{:04}"):
    for number in (*range(1, 11), *range(21, 41)):
        add_case(root / folders[0], root / folders[1], image.format(number), (4, 4, 4), 13, label.format(number))
    return root


@pytest.mark.parametrize(
    ("folders", "image", "label"),
    [
        (("RawData/Training/img", "RawData/Training/label"), "img{:04}", "label{:04}"),
        (("imagesTr", "labelsTr"), "img{:04}", "label{:04}"),
        (("imagesTr", "labelsTr"), "BCV_{:04}_0000", "BCV_{:04}"),
    ],
)
def test_synapse_in_its_layouts(tmp_path, folders, image, label):
    root = abdomens(tmp_path, folders, image, label)
    train, test = (load_volumes("synapse", split, root=root, spacing=None) for split in ("train", "test"))
    assert names(train) == list(SYNAPSE_TRAIN)
    assert names(test) == list(SYNAPSE_TEST)
    assert len({*SYNAPSE_TRAIN, *SYNAPSE_TEST}) == 30
    values, label = test[3]
    assert -1 <= values.min() <= values.max() <= 1
    assert sorted(label.unique().tolist()) == list(range(14))
    assert train.sided
    assert load_volumes("synapse", "test", root=root)[3][1].shape == (2, 3, 3)  # of 2 x 1.5 x 1.5 mm
    eight = load_volumes("synapse", "test", root=root, organs=8, spacing=None)[3][1]
    for organ, number in zip(ORGANS, range(1, 14), strict=True):
        expected = EIGHT.index(organ) + 1 if organ in EIGHT else 0
        assert eight[label == number].unique().tolist() == [expected]
    (root / folders[0] / f"{image.format(22)}.nii.gz").unlink()
    with pytest.raises(InputError, match="test: no image and label of 0022"):
        load_volumes("synapse", "train", root=root)


@pytest.mark.parametrize("name", VOLUMES)
def test_absent_data_are_refused_with_their_source(tmp_path, monkeypatch, name):
    def refusal():
        with pytest.raises(InputError) as caught:
            load_volumes(name, "train")
        assert VOLUMES[name].source in str(caught.value)
        return str(caught.value)

    monkeypatch.delenv("GLAM_DATA", raising=False)
    assert not has_dataset(name)
    assert "GLAM_DATA is not set" in refusal()
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    assert f"{name}: no such folder" in refusal()
    (tmp_path / name).mkdir()
    assert has_dataset(name)
    assert "no volumes of the expected names" in refusal()


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("brain", "train", {}, "unknown data set of volumes 'brain'; allowed: hippocampus, brains"),
        ("hippocampus", "test", {}, "unknown split 'test'; allowed: train, val"),
        ("hippocampus", "val", {"sides": True}, "unknown option of volumes 'sides'; allowed: spacing"),
        ("brains", "train", {"sides": 1}, "option of volumes sides=1: must be true or false"),
        ("synapse", "train", {"organs": 9}, "option of volumes organs=9: must be one of 13, 8"),
    ],
)
def test_bad_options_are_refused(tmp_path, name, split, options, message):
    with pytest.raises(InputError, match=message):
        load_volumes(name, split, root=hippocampus(tmp_path, 1), **options)


def test_volumes_in_memory_are_the_same(tmp_path):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path))
    held = InMemoryVolumes(volumes, limit=3)
    files = [pickle.loads(pickle.dumps(volumes))[index] for index in range(3)]  # as in other processes
    for file in (tmp_path / "imagesTr").iterdir():
        file.unlink()
    assert names(held) == names(volumes)[:3]
    assert all(torch.equal(a, b) for index in range(3) for a, b in zip(files[index], held[index], strict=True))
    for attribute in ("classes", "palette", "ignore_index", "sided"):
        assert getattr(held, attribute) == getattr(volumes, attribute)
    assert held.spacing(2) == (1.0, 1.0, 1.0)


@needs("hippocampus")
def test_real_hippocampus():
    volumes = InMemoryVolumes(load_volumes("hippocampus", "val", root=REAL / "hippocampus"), limit=3)
    assert len(load_volumes("hippocampus", "train", root=REAL / "hippocampus")) == 208
    for index in range(3):
        image, label = volumes[index]
        inside = image[image != image.min()]
        assert label.unique().tolist() == [0, 1, 2]
        assert abs(inside.mean()) < 0.5
        assert volumes.spacing(index) == (1.0, 1.0, 1.0)
        anterior, posterior = (torch.argwhere(label == number).float().mean(0) for number in (1, 2))
        assert anterior[1] > posterior[1]  # the axis from posterior to anterior


@needs("brains")
def test_real_brains_have_right_on_the_right():
    volumes = load_volumes("brains", "test", root=REAL / "brains", sides=True)
    assert len(volumes) == 20
    _, label = volumes[0]
    assert label.unique().tolist() == list(range(26))
    for number in range(1, 25, 2):
        assert volumes.classes[number].removeprefix("right ") == volumes.classes[number + 1].removeprefix("left ")
        right, left = (np.nonzero(label.numpy() == n)[2].mean() for n in (number, number + 1))
        assert right > left + 10
    stem, cortex = (np.nonzero(label.numpy() == n)[0].mean() for n in (25, 1))
    assert stem < cortex  # the axis from inferior to superior


# check-data


def test_check_data_counts_volumes_and_names_what_is_wrong(tmp_path):
    root = hippocampus(tmp_path, 5)
    report = check_data("hippocampus", root)
    assert report.problems == [f"{root / 'imagesTr'}: 5 cases; hippocampus has 260"]
    assert report.splits["train"] == {
        "pairs": 4,
        "sizes": {"8 x 7 x 6": 4},
        "label_values": [0, 1, 2],
        "class_percent": pytest.approx(dict.fromkeys(("background", "anterior", "posterior"), 100 / 3)),
        "void_percent": 0.0,
        "spacings": {"1 x 1 x 1": 4},
        "absent": {},
    }
    json.dumps(report.to_dict())
    cut(root / "imagesTr" / "hippocampus_001.nii.gz")
    save(root / "labelsTr" / "hippocampus_002.nii.gz", np.full((6, 7, 8), 3))
    save(root / "labelsTr" / "hippocampus_003.nii.gz", np.zeros((6, 7, 8)))
    save(root / "imagesTr" / "hippocampus_004.nii.gz", np.ones((6, 7, 8)))
    (root / "imagesTr" / "hippocampus_005.nii.gz").unlink()
    report = check_data("hippocampus", root)
    needles = [
        "label hippocampus_005.nii.gz has no image",
        "4 cases; hippocampus has 260",
        "hippocampus_001.nii.gz: cannot be read",
        "hippocampus_002.nii.gz: unknown label value(s) 3",
        "hippocampus_003.nii.gz: no voxel of any structure",
        "hippocampus_004.nii.gz: all voxels have one value",
    ]
    assert len(report.problems) == len(needles)
    for needle, problem in zip(needles, report.problems, strict=True):
        assert needle in problem
    sizes = "voxels (depth x height x width): 8 x 7 x 6; mm: 1 x 1 x 1; absent (cases): anterior (1)"
    assert f"train: 4 pairs; {sizes}" in report.render()
    assert all(needle in report.render() for needle in needles)


def test_check_data_tells_incomplete_and_absent_sets(tmp_path):
    problems = " ".join(check_data("brains", brains(tmp_path / "brains", "folders")).problems)
    assert "3 cases; brains has 35" in problems
    (tmp_path / "empty").mkdir()
    for name in VOLUMES:
        problems = check_data(name, tmp_path / "empty").problems
        assert len(problems) == 1
        assert VOLUMES[name].source in problems[0]
    assert check_data("synapse", abdomens(tmp_path / "synapse")).ok

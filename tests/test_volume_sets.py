"""Data sets of volumes: their layouts, splits and options, and what check-data says of them."""

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import refused
from nifti_files import NAME, REAL, add_case, cut, hippocampus, names, needs, save

from glamlib.data.check import check_data
from glamlib.data.datasets import VOLUMES, InMemory, has_dataset, load_volumes
from glamlib.data.volume_sets import SYNAPSE_TEST, SYNAPSE_TRAIN, brain_labels
from glamlib.errors import InputError


def test_hippocampus_splits(tmp_path):
    root = hippocampus(tmp_path / "Task04_Hippocampus")
    assert len(load_volumes("hippocampus", "train", root=tmp_path)) == 9  # as in the archive
    (root / "imagesTr" / f"._{NAME}").write_bytes(b"a Mac's")
    assert names(load_volumes("hippocampus", "val", root=root)) == ["hippocampus_003"]  # the study's, without a list
    assert "hippocampus_003" not in names(load_volumes("hippocampus", "train", root=root))
    (root / "train.txt").write_text("hippocampus_002\nhippocampus_001\n")
    (root / "val.txt").write_text("hippocampus_004\n")
    volumes = load_volumes("hippocampus", "train", root=root)
    assert names(volumes) == ["hippocampus_002", "hippocampus_001"]
    assert names(load_volumes("hippocampus", "val", root=root)) == ["hippocampus_004"]
    assert volumes.classes == ("background", "anterior", "posterior")
    assert not volumes.sided
    (root / "val.txt").write_text("hippocampus_003\nhippocampus_001\nhippocampus_999")
    with refused("_001 in val.txt is in train.txt, too", "_999 in val.txt has no image and label"):
        load_volumes("hippocampus", "val", root=root)
    (root / "val.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"val.txt: cannot be read as text"):
        load_volumes("hippocampus", "train", root=root)


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
    with pytest.raises(InputError, match=r"1002 in the published train split has no image and label; .*; and 10 more"):
        load_volumes("brains", "train", root=brains(tmp_path / "b", "source"))
    for number in range(1002, 1037):
        add_case(tmp_path / "b", tmp_path / "b", f"{number}_SS", highest=0, label_name=f"{number}_glm")
    assert len(load_volumes("brains", "train", root=tmp_path / "b")) == 15
    parts = [names(load_volumes("brains", part, root=tmp_path / "b")) for part in ("train", "fit", "held_out")]
    assert parts[2] == ["1007", "1012", "1036"]
    assert sorted(parts[1] + parts[2]) == parts[0]


@needs("brains")
def test_groups_of_brain_structures_are_those_of_the_data_sets_table():
    merged, sided = brain_labels(sides=False), brain_labels(sides=True)
    rows = [line.split("\t") for line in (REAL / "brains" / "labels_full.tsv").read_text().splitlines()[1:]]
    assert {int(value): int(group) for value, _, group, _ in rows} == merged.numbers
    assert (len(merged.classes), len(sided.classes), merged.sided) == (14, 26, False)
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
    values, label = test[3]
    assert -1 <= values.min() <= values.max() <= 1
    assert sorted(label.unique().tolist()) == list(range(14))
    assert train.sided
    assert load_volumes("synapse", "test", root=root)[3][1].shape == (2, 3, 3)  # of 2 x 1.5 x 1.5 mm
    eight = load_volumes("synapse", "test", root=root, organs=8, spacing=None)
    organs = "aorta, gallbladder, left kidney, right kidney, liver, pancreas, spleen, stomach"
    assert ", ".join(eight.classes) == f"background, {organs}"
    for number, organ in enumerate(train.classes):
        expected = eight.classes.index(organ) if organ in eight.classes else 0
        assert eight[3][1][label == number].unique().tolist() == [expected]
    (root / folders[0] / f"{image.format(22)}.nii.gz").unlink()
    with pytest.raises(InputError, match="0022 in the published test split has no image and label"):
        load_volumes("synapse", "test", root=root)


@pytest.mark.parametrize("name", VOLUMES)
def test_absent_data_are_refused_with_their_source(tmp_path, monkeypatch, name):
    def is_refused(needle):
        with refused(VOLUMES[name].source, needle):
            load_volumes(name, "train")

    monkeypatch.delenv("GLAM_DATA", raising=False)
    assert not has_dataset(name)
    is_refused("GLAM_DATA is not set")
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    is_refused(f"{name}: no such folder")
    (tmp_path / name).mkdir()
    assert has_dataset(name)
    is_refused("no volumes of the expected names")
    assert VOLUMES[name].source in "".join(check_data(name, tmp_path / name).problems)


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("brain", "train", {}, "unknown data set of volumes 'brain'; allowed: hippocampus, brains"),
        ("hippocampus", "test", {}, "unknown hippocampus split 'test'; allowed: train, val"),
        ("hippocampus", "val", {"sides": True}, "unknown option of volumes 'sides'; allowed: spacing, scales"),
        ("brains", "train", {"sides": 1}, "option of volumes sides=1: must be true or false"),
        ("brains", "train", {"spacing": (1, 0, 1)}, r"spacing=.* must be a list \(a number from 0.0001 to 1000"),
        ("synapse", "train", {"organs": 9}, "option of volumes organs=9: must be one of 13, 8"),
    ],
)
def test_bad_options_are_refused(tmp_path, name, split, options, message):
    with pytest.raises(InputError, match=message):
        load_volumes(name, split, root=hippocampus(tmp_path, 1), **options)


def test_volumes_in_memory_are_the_same(tmp_path):
    volumes = load_volumes("hippocampus", "train", root=hippocampus(tmp_path))
    held = InMemory(volumes, limit=3, workers=2)  # two processes read by turns
    files = [volumes[index] for index in range(3)]
    for file in (tmp_path / "imagesTr").iterdir():
        file.unlink()
    assert names(held) == names(volumes)[:3]
    assert all(torch.equal(a, b) for index in range(3) for a, b in zip(files[index], held[index], strict=True))
    for attribute in ("classes", "palette", "ignore_index", "sided"):
        assert getattr(held, attribute) == getattr(volumes, attribute)
    assert held.spacing(2) == (1.0, 1.0, 1.0)
    with pytest.raises(IndexError):
        held[3]


@needs("hippocampus")
def test_real_hippocampus():
    volumes = InMemory(load_volumes("hippocampus", "val", root=REAL / "hippocampus"), limit=3)
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


def test_a_data_set_can_be_resampled(tmp_path):
    root = hippocampus(tmp_path)
    own = load_volumes("hippocampus", "train", root=root)
    volumes = load_volumes("hippocampus", "train", root=root, spacing=(2, 1, 0.5))
    image, label = volumes[0]
    assert own[0][0].shape == (1, 8, 7, 6)
    assert own.spacing(0) == own.spacing(1) == (1.0, 1.0, 1.0)  # read before, and not
    assert image.shape == (1, 4, 7, 12)
    assert (label.shape, image.dtype, label.dtype) == ((4, 7, 12), torch.float32, torch.uint8)
    assert volumes.spacing(0) == (2.0, 1.0, 0.5)


def test_check_data_counts_volumes_and_names_what_is_wrong(tmp_path):
    root = hippocampus(tmp_path, 6)
    report = check_data("hippocampus", root)
    assert report.problems == [f"{root}: 6 cases; hippocampus has 260"]
    assert report.splits["train"] == {
        "pairs": 5,
        "sizes": {"8 x 7 x 6": 5},
        "class_numbers": [0, 1, 2],
        "class_percent": pytest.approx(dict.fromkeys(("background", "anterior", "posterior"), 100 / 3)),
        "void_percent": 0.0,
        "spacings": {"1 x 1 x 1": 5},
        "absent": {},
    }
    json.dumps(report.to_dict())
    cut(root / "imagesTr" / "hippocampus_001.nii.gz")
    save(root / "labelsTr" / "hippocampus_002.nii.gz", np.full((6, 7, 8), 3))
    save(root / "labelsTr" / "hippocampus_006.nii.gz", np.zeros((6, 7, 8)))
    save(root / "imagesTr" / "hippocampus_004.nii.gz", np.ones((6, 7, 8)))
    (root / "imagesTr" / "hippocampus_005.nii.gz").unlink()
    report = check_data("hippocampus", root)
    needles = [
        "hippocampus_005.nii.gz has no image",
        "5 cases; hippocampus has 260",
        "hippocampus_001.nii.gz: cannot be read",
        "hippocampus_002.nii.gz: unknown label value(s) 3",
        "hippocampus_004.nii.gz: all voxels of channel 0 have one value",
    ]
    assert len(report.problems) == len(needles)
    assert "hippocampus_006.nii.gz: no voxel of any structure" in report.warnings[0]
    for needle, problem in zip(needles, report.problems, strict=True):
        assert needle in problem
    sizes = "depth x height x width: 8 x 7 x 6; class numbers: 0..2; mm: 1 x 1 x 1"
    assert f"train: 4 pairs; {sizes}; absent (cases): anterior (1)" in report.render()
    assert all(needle in report.render() for needle in needles)


def test_check_data_tells_whole_from_incomplete_sets(tmp_path):
    assert "3 cases; brains has 35" in " ".join(check_data("brains", brains(tmp_path / "brains", "folders")).problems)
    assert check_data("synapse", abdomens(tmp_path / "synapse")).ok

"""CamVid, ADE20K and Cityscapes: small copies in the real layouts, and the real CamVid where it is there."""

import json

import numpy as np
import pytest
import torch
from nifti_files import names
from PIL import Image

from glamlib.data.check import check_data
from glamlib.data.datasets import has_dataset, load_dataset
from glamlib.data.published import LABELS, PAIRS
from glamlib.errors import InputError


def save(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    (image if mode == "L" else Image.new(mode, image.size)).save(path)


COUNTS = {"train": 3, "val": 1, "test": 2}
LAYOUTS = {
    "split in images and labels": "{split}/images {split}/labels",
    "the source's": "{split} {split}annot",
    "the source's, one folder down": "CamVid/{split} CamVid/{split}annot",
}


def make_camvid(root, layout):
    """Write a tiny CamVid; every label of a split is its number of files, but for one void pixel."""
    for split, count in COUNTS.items():
        images, labels = (root / folder for folder in layout.format(split=split).split())
        for index in range(count):
            values = np.full((3, 4), count)
            values[0, 0] = 11
            save(images / f"{split}_{index}.png", values, "RGB")
            save(labels / f"{split}_{index}.png", values)
    return root


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_camvid_reads_the_same_in_both_layouts(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    assert not has_dataset("camvid")
    with pytest.raises(InputError, match=r"camvid: no such folder; set GLAM_DATA .* or run `make camvid`"):
        load_dataset("camvid", "train")
    make_camvid(tmp_path / "camvid", layout)
    assert has_dataset("camvid")
    for split, count in COUNTS.items():
        data = load_dataset("camvid", split)
        assert names(data) == [f"{split}_{index}" for index in range(count)]
        assert data[0][1].tolist() == [[255, count, count, count], [count] * 4, [count] * 4]
    assert names(load_dataset("camvid", "trainval")) == ["train_0", "train_1", "train_2", "val_0"]
    assert load_dataset("camvid", "test", size=(6, 8))[0][0].shape == (3, 6, 8)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("camvid", "SPLIT/images and SPLIT/labels or SPLIT and SPLITannot"),
        ("ade20k", "images/SPLIT and annotations/SPLIT"),
        ("cityscapes", "leftImg8bit/SPLIT and gtFine/SPLIT"),
    ],
)
def test_unknown_splits_and_missing_folders_say_what_is_expected(tmp_path, name, places):
    with pytest.raises(InputError, match=f"(?i)unknown {name} split 'valid'; allowed: train, val"):
        load_dataset(name, "valid", root=tmp_path)
    with pytest.raises(InputError, match=f"(?i)no {name} val split; expected {places}"):
        load_dataset(name, "val", root=tmp_path)


def test_the_real_camvid_is_complete_and_an_item_is_what_its_files_hold(data_root):
    root = data_root / "camvid"
    splits = {split: len(load_dataset("camvid", split, root=root)) for split in ("train", "val", "test", "trainval")}
    assert splits == {"train": 367, "val": 101, "test": 233, "trainval": 468}
    table = json.loads((root / "classes.json").read_text())
    fit, held_out, train = (names(load_dataset("camvid", part, root=root)) for part in ("fit", "held_out", "train"))
    assert sorted(fit + held_out) == sorted(train)
    for sequence, count in {"0001TP": 9, "0006R0": 15, "0016E5": 31}.items():  # the last 15 % of 62, 101 and 204
        frames = sorted(name for name in train if name.startswith(sequence))
        assert [name for name in held_out if name.startswith(sequence)] == frames[-count:]
    assert list(LABELS["camvid"].classes) == table["classes"]
    assert [list(colour) for colour in LABELS["camvid"].palette] == table["palette"][:11]

    data = load_dataset("camvid", "test", root=root)
    image, label = data[0]
    assert data.name(0) == "0001TP_008550"
    assert (image.shape, label.shape, image.dtype, label.dtype) == ((3, 360, 480), (360, 480), torch.uint8, torch.uint8)
    values = np.asarray(Image.open(root / "test/labels/0001TP_008550.png"))
    assert np.array_equal(image.permute(1, 2, 0), np.asarray(Image.open(root / "test/images/0001TP_008550.jpg")))
    assert np.array_equal(label, np.where(values == 11, 255, values))
    assert label.unique()[-1] == 255  # this frame has void


@pytest.mark.slow
def test_the_real_camvid_has_the_documented_shares(data_root):
    report = check_data("camvid", data_root / "camvid")
    assert report.problems == report.warnings == []
    test = report.splits["test"]
    assert test["sizes"] == {"360 x 480": 233}
    assert test["class_numbers"] == [*range(11), 255]
    # Published with the data, in % of all pixels of test, void included.
    shares = [17.1, 24.6, 1.2, 25.8, 9.3, 11.3, 1.0, 1.2, 4.0, 0.63, 0.19]
    ours = [share * (100 - test["void_percent"]) / 100 for share in test["class_percent"].values()]
    assert ours == pytest.approx(shares, abs=0.06)
    assert test["void_percent"] == pytest.approx(3.8, abs=0.05)


SHAPES = {1: (6, 8), 2: (9, 5), 3: (4, 4)}  # every photograph has a size of its own


def add_ade20k(root, split, number, values=None):
    """Write one pair as the real set has it: a JPEG, the second grey, and a greyscale PNG with 0 for void."""
    part, name = {"train": "training", "val": "validation"}[split], f"ADE_{split}_{number:08}"
    values = np.arange(np.prod(SHAPES[number])).reshape(SHAPES[number]) if values is None else values
    save(root / "images" / part / f"{name}.jpg", values, "L" if number == 2 else "RGB")
    save(root / "annotations" / part / f"{name}.png", values)


@pytest.fixture
def ade(tmp_path, monkeypatch):
    """Three training and two validation pairs."""
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    root = tmp_path / "ade20k"
    for split, number in (("train", 1), ("train", 2), ("train", 3), ("val", 1), ("val", 2)):
        add_ade20k(root, split, number)
    (root / "objectInfo150.txt").write_text("")  # lies in the real folder
    return root


def test_ade20k_moves_every_class_down_by_one_and_void_to_255(ade):
    data = load_dataset("ade20k", "train")
    assert [data.name(index) for index in range(3)] == [f"ADE_train_{n:08}" for n in (1, 2, 3)]
    for (image, label), shape in zip((data[0], data[1], data[2]), SHAPES.values(), strict=True):
        assert image.shape == (3, *shape)
        assert label.flatten().tolist() == [255, *range(shape[0] * shape[1] - 1)]
    add_ade20k(ade, "train", 1, np.full((6, 8), 150))
    assert data[0][1].unique().tolist() == [149]
    add_ade20k(ade, "train", 3, np.full((4, 4), 151))
    with pytest.raises(InputError, match=r"00003\.png: unknown label value\(s\) 151; allowed: 1\.\.150 and 0 \(v"):
        data[2]
    for kind in ("images", "annotations"):  # where the archive puts them
        (ade / "ADEChallengeData2016").mkdir(exist_ok=True)
        (ade / kind).rename(ade / "ADEChallengeData2016" / kind)
    assert load_dataset("ade20k", "val", size=(3, 4))[1][1].shape == (3, 4)


def test_ade20k_classes_and_colours_against_the_published_lists():
    # Lines 1, 13, 44, 90, 143 and 150 of objectInfo150.txt, and of color150 as mmsegmentation has it.
    facts = {
        1: ("wall", (120, 120, 120)),
        13: ("person", (150, 5, 61)),
        44: ("signboard", (255, 5, 153)),
        90: ("television", (0, 255, 194)),
        143: ("plate", (0, 255, 184)),
        150: ("flag", (92, 0, 255)),
    }
    labels = LABELS["ade20k"]
    classes, values, palette = labels.classes, labels.values, labels.palette
    assert {line: (classes[line - 1], palette[line - 1]) for line in facts} == facts
    assert values == tuple(range(1, 151))
    assert len(set(classes)) == 150
    assert len(set(palette)) == 149  # road and skyscraper


def test_ade20k_in_check_data(ade, monkeypatch):
    report = check_data("ade20k", ade)
    train, val = report.problems
    assert "3 pairs; ADE20K train has 20210" in train
    assert "2 pairs; ADE20K val has 2000" in val
    # of train's 48 + 45 + 16 pixels, each image has one void and one "wall"
    assert report.splits["train"]["void_percent"] == pytest.approx(100 * 3 / 109)
    assert report.splits["train"]["class_percent"]["wall"] == pytest.approx(100 * 3 / 106)

    monkeypatch.setitem(PAIRS, "ade20k", {"train": 4, "val": 2})
    for kind in ("images/training/ADE_train_00000002.jpg", "annotations/training/ADE_train_00000002.png"):
        (ade / kind).unlink()
    (problem,) = check_data("ade20k", ade).problems
    assert "2 pairs; ADE20K train has 4; the numbers 2, 4 are missing" in problem
    monkeypatch.setitem(PAIRS, "ade20k", {"train": 2, "val": 2})
    assert check_data("ade20k", ade).ok


NAMES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "hanover_000000_000164"],
    "val": ["frankfurt_000000_000294", "munster_000173_000019"],
    "test": ["berlin_000000_000019"],
}
# The train id of every raw id from 0, copied from the trainId column of cityscapesScripts' labels.py
TRAIN_IDS = [
    *(255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255),
    *(5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18),
]
RAW = np.resize(np.arange(34, dtype=np.uint8), (5, 8))


def add_street(root, split, name, values=RAW, end="labelIds", pixels=None):
    city = name.split("_")[0]
    labels = root / "gtFine" / split / city
    picture = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    save(picture, *((values, "RGB") if pixels is None else (pixels,)))
    save(labels / f"{name}_gtFine_{end}.png", values)
    save(labels / f"{name}_gtFine_instanceIds.png", values)  # these and others lie beside
    (labels / f"{name}_gtFine_polygons.json").write_text("{}")


@pytest.fixture
def streets(tmp_path, monkeypatch):
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    for split, members in NAMES.items():
        for name in members:
            add_street(tmp_path / "cityscapes", split, name, np.full((5, 8), 3) if split == "test" else RAW)
    return tmp_path / "cityscapes"


def test_cityscapes_raw_ids_become_the_19_classes_and_255(streets):
    assert {split: names(load_dataset("cityscapes", split)) for split in NAMES} == NAMES
    image, label = load_dataset("cityscapes", "train")[2]
    assert image.shape == (3, 5, 8)
    assert label.flatten().tolist()[:34] == TRAIN_IDS
    assert load_dataset("cityscapes", "test")[0][1].unique().tolist() == [255]  # its labels are dummies


def test_cityscapes_train_ids_are_read_where_there_is_nothing_else(streets):
    values = np.resize([*range(19), 255], (5, 8))
    for name in NAMES["val"]:
        add_street(streets, "val", name, values, end="labelTrainIds")
    assert load_dataset("cityscapes", "val")[0][1].flatten().tolist()[:34] == TRAIN_IDS  # labelIds come first
    for file in streets.glob("gtFine/*/*/*_labelIds.png"):
        file.unlink()
    assert load_dataset("cityscapes", "val")[0][1].tolist() == values.tolist()
    add_street(streets, "val", NAMES["val"][0], RAW, end="labelTrainIds")
    with pytest.raises(InputError, match=r"value\(s\) 19, 20, 21, 22, 23, \.\.\.; allowed: 0\.\.18 and 255 \(void\)"):
        load_dataset("cityscapes", "val")[0]


def test_cityscapes_classes_palette_and_counts_are_complete():
    labels = LABELS["cityscapes"]
    assert [TRAIN_IDS.index(number) for number in range(19)] == list(labels.values)
    assert len(set(labels.palette)) == 19
    colours = {"road": (128, 64, 128), "person": (220, 20, 60), "bicycle": (119, 11, 32)}
    assert colours.items() <= dict(zip(labels.classes, labels.palette, strict=True)).items()
    assert PAIRS["cityscapes"] == {"train": 2975, "val": 500, "test": 1525}

import fnmatch

import numpy as np
import pytest
import torch
from PIL import Image

from glamlib.data import cityscapes
from glamlib.data.check import check_data
from glamlib.data.cityscapes import CITIES, CITYSCAPES, CLASSES, PALETTE, SPLIT_SIZES
from glamlib.data.datasets import load_dataset
from glamlib.errors import InputError
from glamlib.runs.predict import write_for_server

PAIRS = {
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


def add(root, split, name, values=RAW, end="labelIds"):
    city = name.split("_")[0]
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / split / city).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", values.shape[::-1]).save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
    labels = root / "gtFine" / split / city
    Image.fromarray(values).save(labels / f"{name}_gtFine_{end}.png")
    Image.fromarray(values).save(labels / f"{name}_gtFine_instanceIds.png")  # these and others lie beside
    (labels / f"{name}_gtFine_polygons.json").write_text("{}")


@pytest.fixture
def root(tmp_path):
    for split, names in PAIRS.items():
        for name in names:
            add(tmp_path, split, name, np.full((5, 8), 3, np.uint8) if split == "test" else RAW)
    return tmp_path


def test_raw_ids_become_the_19_classes_and_255(root):
    for split, names in PAIRS.items():
        data = CITYSCAPES.open(root, split)
        assert [data.name(i) for i in range(len(data))] == [f"{name}_leftImg8bit" for name in names]
    image, label = CITYSCAPES.open(root, "train")[2]
    assert image.shape == (3, 5, 8)
    assert image.dtype == label.dtype == torch.uint8
    assert label.flatten().tolist()[:34] == TRAIN_IDS
    assert CITYSCAPES.open(root, "test")[0][1].unique().tolist() == [255]  # its labels are dummies


def test_label_train_ids_are_read_where_there_is_nothing_else(root):
    values = np.resize(np.array([*range(19), 255], np.uint8), (5, 8))
    for split, names in PAIRS.items():
        for name in names:
            add(root, split, name, values, end="labelTrainIds")
    assert CITYSCAPES.open(root, "val")[0][1].flatten().tolist()[:34] == TRAIN_IDS  # labelIds are there and come first
    for file in root.glob("gtFine/val/*/*_labelIds.png"):
        file.unlink()
    assert CITYSCAPES.open(root, "val")[0][1].tolist() == values.tolist()
    add(root, "val", PAIRS["val"][0], RAW, end="labelTrainIds")
    with pytest.raises(InputError, match=r"19, 20.* out of range; allowed: 0\.\.18 and 255 \(void\)"):
        CITYSCAPES.open(root, "val")[0]


def test_classes_and_palette_are_complete():
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE)) == 19
    assert [TRAIN_IDS.index(number) for number in range(19)] == list(cityscapes.RAW_IDS)
    assert {name: PALETTE[CLASSES.index(name)] for name in ("road", "person", "bicycle")} == {
        "road": (128, 64, 128),
        "person": (220, 20, 60),
        "bicycle": (119, 11, 32),
    }
    assert SPLIT_SIZES == {"train": 2975, "val": 500, "test": 1525}
    assert [len(cities) for cities in CITIES.values()] == [18, 3, 6]


def test_bad_input_is_one_clear_error(root, monkeypatch):
    with pytest.raises(InputError, match="unknown Cityscapes split 'valid'; allowed: train, val, test"):
        CITYSCAPES.open(root, "valid")
    with pytest.raises(InputError, match=r"nowhere/leftImg8bit/train: no such folder; expected leftImg8bit/SPLIT/CITY"):
        CITYSCAPES.open(root / "nowhere", "train")
    add(root, "val", PAIRS["val"][0], np.full((5, 8), 34, np.uint8))
    with pytest.raises(InputError, match=r"000294_gtFine_labelIds.png: label value\(s\) 34 .*the raw ids 0..33"):
        CITYSCAPES.open(root, "val")[0]
    label = root / "gtFine/val/munster/munster_000173_000019_gtFine_labelIds.png"
    label.rename(label.with_name("munster_000174_000019_gtFine_labelIds.png"))
    with pytest.raises(InputError, match=r"image munster/munster_000173_\d+_leftImg8bit\.png has no label munster/m"):
        CITYSCAPES.open(root, "val")
    (root / "val").mkdir()
    (root / "leftImg8bit" / "val").rename(root / "val" / "images")
    (root / "leftImg8bit" / "val").mkdir()
    with pytest.raises(InputError, match="leftImg8bit/val: no images; expected"):
        CITYSCAPES.open(root, "val")
    for file in root.glob("gtFine/train/*/*.png"):
        file.unlink()
    with pytest.raises(InputError, match="gtFine/train: no labels; expected"):
        CITYSCAPES.open(root, "train")
    monkeypatch.delenv("GLAM_DATA", raising=False)
    with pytest.raises(InputError, match="dataset 'cityscapes': GLAM_DATA is not set"):
        load_dataset("cityscapes", "val")


def test_check_data_counts_by_city(root, monkeypatch):
    report = check_data("cityscapes", root)
    assert {name: split["pairs"] for name, split in report.splits.items()} == {"train": 3, "val": 2, "test": 1}
    train, val, _ = report.problems
    assert "3 pairs; Cityscapes train has 2975; missing: aachen (2 of 174), bochum (0 of 96)" in train
    assert "hanover (1 of 196)" in train
    assert val.endswith("missing: frankfurt (1 of 267), lindau (0 of 59), munster (1 of 174)")
    # RAW's 40 values are 0..33 and again 0..5: of these 19 are classes and 21 void
    assert report.splits["val"]["void_percent"] == pytest.approx(100 * 21 / 40)
    assert report.splits["val"]["class_percent"]["sky"] == pytest.approx(100 / 19)
    assert report.splits["val"]["label_values"] == list(range(34))

    for split, cities in {"train": {"aachen": 2, "hanover": 1}, "val": {"frankfurt": 1, "munster": 1}}.items():
        monkeypatch.setitem(CITIES, split, cities)
        monkeypatch.setitem(SPLIT_SIZES, split, len(PAIRS[split]))
    monkeypatch.setitem(CITIES, "test", {"berlin": 1})
    monkeypatch.setitem(SPLIT_SIZES, "test", 1)
    assert check_data("cityscapes", root).ok
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind / "test").rename(root / kind / "tset")
    (root / "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png").write_bytes(b"no image")
    broken, absent = check_data("cityscapes", root).problems
    assert "000294_leftImg8bit.png: cannot be read" in broken
    assert "leftImg8bit/test: no such folder" in absent


def test_predictions_for_the_server_are_raw_ids_under_names_it_finds(root):
    data = CITYSCAPES.open(root, "val")
    written = [write_for_server(root / "out", data.name(i), data[i][1].long() % 19) for i in range(len(data))]
    # as the server's getPrediction looks for them
    found = [fnmatch.filter([path.name for path in written], f"{name}*.png") for name in PAIRS["val"]]
    assert found == [[path.name] for path in written]
    assert sorted((root / "out").iterdir()) == sorted(written)
    # back through the reader of labels: the prediction
    classes = np.resize(np.arange(19), (5, 8))
    path = write_for_server(root / "out", data.name(0), torch.from_numpy(classes))
    path.rename(root / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png")
    assert data[0][1].tolist() == classes.tolist()


def test_what_the_server_would_refuse_is_refused(tmp_path):
    good = np.zeros((2, 2), np.int64)
    with pytest.raises(InputError, match="image 'street' has no Cityscapes name; allowed: CITY_SEQUENCE_FRAME"):
        write_for_server(tmp_path, "street", good)
    for bad, needle in (
        (good + 255, "values 255..255"),
        (good - 1, "values -1"),
        (good[0], "shape"),
        (good / 1, "float"),
    ):
        with pytest.raises(InputError, match=needle):
            write_for_server(tmp_path, "bonn_000000_000019", bad)
    assert list(tmp_path.iterdir()) == []

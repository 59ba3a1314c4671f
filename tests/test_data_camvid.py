import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glamlib.data.camvid import CAMVID, CLASSES, PALETTE
from glamlib.data.datasets import has_dataset, load_dataset
from glamlib.errors import InputError

REAL = Path(os.environ.get("GLAM_DATA") or Path(__file__).parents[2] / "shared" / "data") / "camvid"
needs_camvid = pytest.mark.skipif(not REAL.is_dir(), reason="needs the real CamVid: set GLAM_DATA")

COUNTS = {"train": 3, "val": 1, "test": 2}
LAYOUTS = {
    "split in images and labels": "{split}/images {split}/labels",
    "the source's": "{split} {split}annot",
    "the source's, one folder down": "CamVid/{split} CamVid/{split}annot",
}


def make(root, layout):
    """Write a tiny CamVid; every label of a split is its number of files, but for one void pixel."""
    for split, count in COUNTS.items():
        images, labels = (root / folder for folder in layout.format(split=split).split())
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (4, 3)).save(images / f"{split}_{index}.png")
            values = np.full((3, 4), count, np.uint8)
            values[0, 0] = 11
            Image.fromarray(values).save(labels / f"{split}_{index}.png")
    return root


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_both_layouts_read_the_same(tmp_path, layout):
    root = make(tmp_path, layout)
    for split, count in COUNTS.items():
        data = CAMVID.open(root, split)
        assert [data.name(index) for index in range(len(data))] == [f"{split}_{index}" for index in range(count)]
        assert data[0][1].tolist() == [[255, count, count, count], [count] * 4, [count] * 4]
    both = CAMVID.open(root, "trainval")
    assert [both.name(index) for index in range(len(both))] == ["train_0", "train_1", "train_2", "val_0"]
    assert CAMVID.open(root, "test", size=(6, 8))[0][0].shape == (3, 6, 8)


def test_bad_roots_splits_and_pairs_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown CamVid split 'valid'; allowed: train, val, test, trainval"):
        CAMVID.open(tmp_path, "valid")
    with pytest.raises(
        InputError, match=r"no CamVid val split; expected val/images and val/labels, or val and valannot"
    ):
        CAMVID.open(tmp_path, "val")
    make(tmp_path, LAYOUTS["the source's"])
    (tmp_path / "testannot" / "test_1.png").unlink()
    assert len(CAMVID.open(tmp_path, "train")) == 3
    with pytest.raises(InputError, match=r"test: 1 file\(s\) do not pair up: image test_1.png has no label test_1.png"):
        CAMVID.open(tmp_path, "test")


def test_values_above_void_are_refused(tmp_path):
    make(tmp_path, LAYOUTS["the source's"])
    Image.new("L", (4, 3), 12).save(tmp_path / "testannot" / "test_1.png")
    with pytest.raises(
        InputError, match=r"test_1.png: label value\(s\) 12 out of range; allowed: 0..10 and 11 \(void\)"
    ):
        CAMVID.open(tmp_path, "test")[1]


def test_missing_data_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    assert not has_dataset("camvid")
    with pytest.raises(InputError, match=r"camvid: no such folder; set GLAM_DATA .* or run `make camvid`"):
        load_dataset("camvid", "train")
    make(tmp_path / "camvid", LAYOUTS["the source's"])
    assert has_dataset("camvid")
    assert len(load_dataset("camvid", "trainval")) == 4


@needs_camvid
def test_the_real_splits_are_complete_and_the_class_table_is_theirs():
    assert {split: len(CAMVID.open(REAL, split)) for split in ("train", "val", "test", "trainval")} == {
        "train": 367,
        "val": 101,
        "test": 233,
        "trainval": 468,
    }
    table = json.loads((REAL / "classes.json").read_text())
    assert list(CLASSES) == table["classes"]
    assert [list(colour) for colour in PALETTE] == table["palette"][:11]


@needs_camvid
def test_a_real_item_is_what_its_files_hold():
    data = CAMVID.open(REAL, "test")
    image, label = data[0]
    assert data.name(0) == "0001TP_008550"
    assert (image.shape, label.shape, image.dtype, label.dtype) == ((3, 360, 480), (360, 480), torch.uint8, torch.uint8)
    pixels = np.asarray(Image.open(REAL / "test/images/0001TP_008550.jpg"))
    values = np.asarray(Image.open(REAL / "test/labels/0001TP_008550.png"))
    assert np.array_equal(image.permute(1, 2, 0), pixels)
    assert np.array_equal(label, np.where(values == 11, 255, values))
    assert label.unique()[-1] == 255  # this frame has void

import numpy as np
import pytest
import torch
from PIL import Image

from glamlib.data.ade20k import ADE20K, CLASSES, PALETTE, SPLIT_SIZES
from glamlib.data.check import check_data
from glamlib.data.datasets import load_dataset
from glamlib.errors import InputError

SHAPES = {1: (6, 8), 2: (9, 5), 3: (4, 4)}  # every photograph has a size of its own


def add(root, split, number, values=None, mode="RGB"):
    """Write one pair as the real set has it: a JPEG of any mode, and a greyscale PNG with 0 for void."""
    part = {"train": "training", "val": "validation"}[split]
    name = f"ADE_{split}_{number:08}"
    shape = SHAPES[number]
    for kind in ("images", "annotations"):
        (root / kind / part).mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.arange(shape[0] * shape[1]).reshape(shape)
    Image.new(mode, shape[::-1]).save(root / "images" / part / f"{name}.jpg")
    Image.fromarray(values.astype(np.uint8)).save(root / "annotations" / part / f"{name}.png")


@pytest.fixture
def root(tmp_path):
    """Three training and two validation pairs, one of them grey."""
    for number in (1, 2, 3):
        add(tmp_path, "train", number, mode="L" if number == 2 else "RGB")
    for number in (1, 2):
        add(tmp_path, "val", number)
    (tmp_path / "objectInfo150.txt").write_text("")  # lies in the real folder
    return tmp_path


def test_void_is_255_and_every_class_moves_down_by_one(root):
    data = ADE20K.open(root, "train")
    assert [data.name(i) for i in range(len(data))] == [f"ADE_train_{n:08}" for n in (1, 2, 3)]
    for item, shape in zip((data[0], data[1], data[2]), SHAPES.values(), strict=True):
        image, label = item
        assert image.shape == (3, *shape)
        assert image.dtype == label.dtype == torch.uint8
        assert label.flatten().tolist() == [255, *range(shape[0] * shape[1] - 1)]


def test_all_150_values_are_classes_and_151_is_refused(root):
    add(root, "train", 1, np.resize(np.arange(151), (6, 8)))
    values = np.full((9, 5), 150)
    values[0, 0] = 0
    add(root, "train", 2, values)
    data = ADE20K.open(root, "train")
    assert data[1][1].unique().tolist() == [149, 255]
    assert len(data.classes) == len(data.palette) == 150
    add(root, "train", 3, np.full((4, 4), 151))
    with pytest.raises(InputError, match=r"00003\.png: label value\(s\) 151 out of range; allowed: 1\.\.150 and 0 \(v"):
        data[2]


def test_classes_and_colours_against_the_published_lists():
    # Lines 1, 13, 44, 90, 143 and 150 of objectInfo150.txt, and of color150 as mmsegmentation has it.
    facts = {
        1: ("wall", (120, 120, 120)),
        13: ("person", (150, 5, 61)),
        44: ("signboard", (255, 5, 153)),
        90: ("television", (0, 255, 194)),
        143: ("plate", (0, 255, 184)),
        150: ("flag", (92, 0, 255)),
    }
    assert {line: (CLASSES[line - 1], PALETTE[line - 1]) for line in facts} == facts
    assert len(set(CLASSES)) == 150
    assert len(set(PALETTE)) == 149  # road and skyscraper


def test_the_folder_may_lie_where_the_archive_puts_it(root, monkeypatch):
    inside = root / "home" / "ade20k" / "ADEChallengeData2016"
    inside.mkdir(parents=True)
    for kind in ("images", "annotations"):
        (root / kind).rename(inside / kind)
    monkeypatch.setenv("GLAM_DATA", str(root / "home"))
    data = load_dataset("ade20k", "val", size=(3, 4))
    assert len(data) == 2
    assert data[1][1].shape == (3, 4)


def test_bad_input_is_one_clear_error(root):
    with pytest.raises(InputError, match="unknown ADE20K split 'validation'; allowed: train, val"):
        ADE20K.open(root, "validation")
    with pytest.raises(InputError, match="nowhere: no ADE20K val split; expected images"):
        ADE20K.open(root / "nowhere", "val")
    (root / "annotations" / "validation" / "ADE_val_00000002.png").unlink()
    with pytest.raises(InputError, match=r"1 file\(s\) do not pair up: image ADE_val_00000002.jpg has no label"):
        ADE20K.open(root, "val")
    (root / "annotations" / "training").rename(root / "annotations" / "train")
    with pytest.raises(InputError, match=r"training: no such folder; expected images/\{training,validation\}/NAME.jpg"):
        ADE20K.open(root, "train")


def test_check_data_counts_and_names_what_is_missing(root, monkeypatch):
    report = check_data("ade20k", root)
    assert {name: split["pairs"] for name, split in report.splits.items()} == {"train": 3, "val": 2}
    train, val = report.problems
    assert "3 pairs; ADE20K train has 20210; missing: ADE_train_00000004, ADE_train_00000005" in train
    assert train.endswith("and 20204 more")
    assert "2 pairs; ADE20K val has 2000" in val
    # of train's 48 + 45 + 16 pixels, each image has one void and one "wall"
    assert report.splits["train"]["void_percent"] == pytest.approx(100 * 3 / 109)
    assert report.splits["train"]["class_percent"]["wall"] == pytest.approx(100 * 3 / 106)

    monkeypatch.setitem(SPLIT_SIZES, "train", 3)
    monkeypatch.setitem(SPLIT_SIZES, "val", 2)
    assert check_data("ade20k", root).ok
    file = root / "images" / "training" / "ADE_train_00000001.jpg"
    file.write_bytes(file.read_bytes()[:100])
    add(root, "val", 2, np.full((9, 5), 200))
    broken, wrong = check_data("ade20k", root).problems
    assert "ADE_train_00000001.jpg: cannot be read" in broken
    assert "ADE_val_00000002.png: label value(s) 200" in wrong

"""One's own folder: layouts, classes.json, pairs; data sets by name and in memory."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from glamlib.data.datasets import InMemory, absent_classes, dataset_of, has_dataset, load_dataset, splits_of
from glamlib.data.images import voc_colour
from glamlib.errors import InputError
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import run_data

LABEL = np.array([[0, 1, 2, 7], [1, 1, 0, 7], [2, 2, 2, 0]], np.uint8)
CLASSES = {"classes": ["sea", "land", "ice"], "ignore_index": 7}


def save_label(path, values=LABEL):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def save_image(path, shape=(3, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(shape[0] * shape[1] * 3, dtype=np.uint8).reshape(*shape, 3)).save(path)


def load(root, split="train", **options):
    return load_dataset("folder", split, root=root, **options)


@pytest.fixture
def root(tmp_path):
    """Two pairs in the split "train", void 7."""
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    for name in ("a", "b"):
        save_image(tmp_path / "train" / "images" / f"{name}.png")
        save_label(tmp_path / "train" / "labels" / f"{name}.png")
    return tmp_path


@contextmanager
def refused(*needles):
    """Expect an InputError of one line in which every needle occurs."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [needle for needle in needles if needle not in message] == [], message


def test_items_are_the_files_pixels_with_void_mapped(root):
    data = load(root)
    image, label = data[0]
    assert (len(data), data.name(0), data.name(1)) == (2, "a", "b")
    assert data.classes == ("sea", "land", "ice")
    assert data.ignore_index == 255
    assert image.dtype == label.dtype == torch.uint8
    assert image.tolist() == np.arange(36).reshape(3, 4, 3).transpose(2, 0, 1).tolist()
    assert label.tolist() == [[0, 1, 2, 255], [1, 1, 0, 255], [2, 2, 2, 0]]
    assert [name for _, name in zip(data, "xyz", strict=False)] == ["x", "y"]  # iteration ends


def test_images_and_labels_may_lie_in_the_root(root):
    for kind in ("images", "labels"):
        (root / "train" / kind).rename(root / kind)
    assert len(load(root, None)) == 2


def test_other_suffixes_and_capitals_count_and_stray_files_do_not(root):
    images, labels = root / "train" / "images", root / "train" / "labels"
    Image.new("RGB", (4, 3), (50, 50, 50)).save(images / "c.JPG", quality=95)
    Image.new("CMYK", (4, 3)).save(images / "d.jpeg")
    for name, suffix in (("e", ".tif"), ("f", ".bmp"), ("g", ".webp"), ("h", ".gif")):
        Image.new("L", (4, 3), 9).save(images / f"{name}{suffix}", lossless=True)
    for name in ("c.png", "d.png", "e.TIFF", "f.bmp", "g.png", "h.png"):
        save_label(labels / name)
    for stray in ("Thumbs.db", "._a.png", "notes.txt"):
        (images / stray).write_bytes(b"x")
    data = load(root)
    assert [data.name(index) for index in range(len(data))] == list("abcdefgh")
    assert abs(int(data[2][0][0, 0, 0]) - 50) <= 1
    assert data[3][0].unique().tolist() == [255]  # no ink is white
    for index in range(4, 8):
        assert data[index][0].unique().tolist() == [9]
        assert data[index][1].tolist() == data[0][1].tolist()


def test_size_resizes_the_label_to_existing_values_only(root):
    plain, doubled = load(root), load(root, size=(6, 8))
    image, label = doubled[0]
    assert image.shape == (3, 6, 8)
    assert label.tolist() == np.kron(plain[0][1].numpy(), np.ones((2, 2), int)).tolist()
    assert load(root, size=[1, 2])[0][0].shape == (3, 1, 2)
    for size in ((0, 4), (4,), "44", 4, (4.0, 4), (True, 4)):
        with refused("size", repr(size), "whole number at least 1"):
            load(root, size=size)


def test_palette_is_read_or_made(root):
    # The PASCAL VOC development kit's first colours and its 15th ("person").
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128)}
    assert {value: voc_colour(value) for value in voc} == voc
    assert load(root).palette == (voc[0], voc[1], voc[2])
    colours = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]  # the fourth is the void's
    (root / "classes.json").write_text(json.dumps(CLASSES | {"palette": colours}))
    assert load(root).palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def test_missing_folders_say_what_is_expected(root):
    with refused("nowhere", "no such folder", "classes.json", "images/NAME"):
        load(root / "nowhere", None)
    with refused("'tset'", "train"):
        load(root, "tset")
    with refused("None", "train"):
        load(root, None)
    (root / "train" / "labels").rename(root / "train" / "masks")
    with refused("labels", "no such folder", "labels/NAME"):
        load(root)
    for file in root.glob("train/images/*"):
        file.unlink()
    with refused("images: no files *.jpg, *.jpeg, *.png", "images/NAME"):
        load(root)
    (root / "classes.json").unlink()
    with refused("classes.json", "no such file"):
        load(root)


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("{not json", "cannot be read as JSON"),
        ('["sea"]', "must be {"),
        ("{}", "missing entry: classes"),
        ('{"classes": []}', "classes=[]: must be"),
        ('{"classes": ["sea", 3]}', "classes=['sea', 3]: must be"),
        ('{"classes": ["sea", "sea"]}', "different names"),
        ('{"classes": ["sea"], "ignore_index": "7"}', "ignore_index='7': must be a whole number"),
        ('{"classes": ["sea"], "ignore_index": 256}', "ignore_index=256: must be"),
        ('{"classes": ["sea", "land"], "ignore_index": 1}', "ignore_index=1: must be null or from 2 to 255"),
        ('{"classes": ["sea"], "palette": [[1, 2, 256]]}', "palette=[[1, 2, 256]]: must be"),
        ('{"classes": ["sea", "land"], "palette": [[1, 2, 3]]}', "has 1 colours; must be 2"),
    ],
)
def test_malformed_classes_json_is_refused(root, text, needle):
    (root / "classes.json").write_text(text)
    with refused("classes.json", needle):
        load(root)


def test_files_without_partner_are_counted_and_the_first_named(root):
    images, labels = root / "train" / "images", root / "train" / "labels"
    for name in "cdef":
        save_image(images / f"{name}.png")
    save_label(labels / "z.png")
    with refused("images: 5 file(s)", "image c.png has no label c.png", "image e.png"):
        load(root)
    for name in "cdef":
        (images / f"{name}.png").unlink()
    with refused("images: 1 file(s)", "label z.png has no image"):
        load(root)
    (labels / "z.png").unlink()
    save_image(images / "a.jpg")
    save_label(labels / "b.tif")
    with refused("2 file(s)", "a.png has the same name as a.jpg", "b.tif has the same name as b.png"):
        load(root)


def test_wrong_values_and_sizes_are_refused(root):
    save_label(
        root / "train" / "labels" / "b.png", np.where(LABEL == 2, 3, np.where(LABEL == 1, 255, LABEL)).astype("u1")
    )
    data = load(root)
    assert data[0][1].max() == 255  # the good file reads
    with refused("b.png", "value(s) 3, 255 out of range", "allowed: 0..2 and 7 (void)"):
        data[1]
    (root / "classes.json").write_text(json.dumps(CLASSES | {"ignore_index": None}))
    with pytest.raises(InputError, match=r"a\.png: label value\(s\) 7 out of range; allowed: 0\.\.2$"):
        load(root)[0]
    save_image(root / "train" / "images" / "a.png", (4, 4))
    with refused("a.png", "4 x 4 and 3 x 4"):
        data[0]


def test_load_dataset_finds_the_root_by_glam_data(root, monkeypatch):
    monkeypatch.delenv("GLAM_DATA", raising=False)
    assert not has_dataset("folder")
    with refused("'folder'", "GLAM_DATA"):
        load_dataset("folder", "train")
    root.rename(root.with_name("folder"))
    monkeypatch.setenv("GLAM_DATA", str(root.parent))
    assert has_dataset("folder")
    assert len(load_dataset("folder", "train")) == 2
    for call in (lambda: load_dataset("camvidd", "train"), lambda: has_dataset("camvidd")):
        with refused("'camvidd'", "folder, camvid"):
            call()


@pytest.mark.parametrize("workers", [0, 2])
def test_in_memory_is_the_same_data_set_read_once(root, workers):
    data = load(root)
    held = InMemory(data, workers=workers)
    assert (len(held), held.name(1), held.classes, held.palette) == (2, "b", data.classes, data.palette)
    assert all(torch.equal(mine, theirs) for i in range(2) for mine, theirs in zip(held[i], data[i], strict=True))
    assert len(InMemory(data, limit=1)) == 1
    for file in root.glob("train/*/*"):
        file.unlink()
    assert held[1][0].shape == (3, 3, 4)
    with pytest.raises(IndexError):
        held[2]


def test_absent_classes_are_those_that_no_label_holds(root):
    assert absent_classes(load(root)) == []
    for name in ("a", "b"):
        save_label(root / "train" / "labels" / f"{name}.png", np.where(LABEL == 1, 7, LABEL))
    assert absent_classes(load(root)) == ["land"]


def test_own_data_are_told_by_what_their_folder_holds(root, tmp_path_factory):
    assert (dataset_of(root), splits_of("folder", root)) == ("folder", ("train",))
    other = tmp_path_factory.mktemp("other")
    with refused(str(other), "images/NAME", "imagesTr/"):
        dataset_of(other)
    with refused("nowhere", "no such folder"):
        dataset_of(other / "nowhere")
    (other / "imagesTr").mkdir()
    assert dataset_of(other) == "volumes"
    with refused("'none'", "folder, camvid"):
        splits_of("none", root)


def test_a_run_takes_its_data_from_root(root):
    fixed = {"study": "own", "variant": "a", "seed": 0, "profile": "cpu", "model": "swin_nano_unet"}
    run = RunParameters(
        **fixed, steps=1, batch_size=1, lr=0.1, dataset="folder", root=str(root), data={"train": "train", "test": "x"}
    )
    assert len(run_data(run, "train")) == 2
    with refused("missing option of data: val"):
        run_data(run, "val")
    with refused("folder split 'x'"):
        run_data(run, "test")
    assert len(run_data(replace(run, data=run.data | {"val": "train"}), "val")) == 2
    with refused("root=", "scenes"):
        run_data(replace(run, dataset="scenes", data={"train": 1, "test": 1}), "train")

"""One's own folder: layouts, classes.json, pairs; data sets by name and in memory."""

import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from conftest import refused
from PIL import Image
from test_published_images import save

from glamlib.data.check import check_data
from glamlib.data.datasets import dataset_of, has_dataset, load_dataset, survey
from glamlib.data.folder import folder, suggest_classes
from glamlib.data.layout import sided, voc_palette
from glamlib.errors import InputError
from glamlib.evaluation.inference import view_size
from glamlib.studies.parameters import InferenceOptions, RunParameters
from glamlib.training.datasets import run_data

LABEL = np.array([[0, 1, 2, 7], [1, 1, 0, 7], [2, 2, 2, 0]], np.uint8)
CLASSES = {"classes": ["sea", "land", "ice"], "ignore_index": 7}


def save_image(path, shape=(3, 4)):
    save(path, np.arange(shape[0] * shape[1] * 3).reshape(*shape, 3))


def add_pair(root, place, values=LABEL, images="{}/images/{}.png", labels="{}/labels/{}.png"):
    """Save an image and a label under patterns of two parts, for the two of "SPLIT/NAME"."""
    save_image(root / images.format(*place.split("/")), values.shape[:2])
    save(root / labels.format(*place.split("/")), values)


def load(root, split="train", **options):
    return load_dataset("folder", split, root=root, **options)


@pytest.fixture
def root(tmp_path):
    """Two pairs in the split "train", one in each of the others, void 7."""
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    for name in ("train/a", "train/b", "val/v", "test/t"):
        add_pair(tmp_path, name)
    return tmp_path


@pytest.mark.parametrize("name", ["left_lung", "LungR", "rh-cortex", "kidney (l)", "LeftKidney", "rt femur"])
def test_names_of_classes_tell_whether_left_and_right_differ(root, name):
    (root / "classes.json").write_text(json.dumps(CLASSES | {"classes": ["sea", name, "ice"]}))
    assert "; left and right differ" in folder(root).about
    assert sided(["lad", "rad"])
    assert not sided(["sea", "bright light", "upright pole", "gland", "rad"])


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


def test_other_suffixes_and_capitals_count_and_stray_files_do_not(root):
    images, labels = root / "train" / "images", root / "train" / "labels"
    for name in ("c.JPG", "d.jpeg", "e.tif", "f.bmp", "g.webp", "h.gif", "u\u0308.png"):  # two letters that are one ...
        Image.new("RGB", (4, 3)).save(images / name)
    for name in ("c.png", "d.png", "e.TIFF", "f.bmp", "g.png", "h.png", "\u00fc.png"):  # ... here
        save(labels / name, LABEL)
    for stray in ("Thumbs.db", "._a.png", "notes.txt"):
        (images / stray).write_bytes(b"x")
    data = load(root)
    assert [data.name(index) for index in range(len(data))] == list("abcdefgh\u00fc")
    assert all(torch.equal(data[index][1], data[0][1]) for index in range(8))


def test_size_resizes_the_label_to_existing_values_only(root):
    plain, doubled = load(root), load(root, size=(6, 8))
    image, label = doubled[0]
    assert image.shape == (3, 6, 8)
    assert label.tolist() == np.kron(plain[0][1].numpy(), np.ones((2, 2), int)).tolist()
    assert load(root, size=[1, 2])[0][0].shape == (3, 1, 2)
    with refused("size=(0, 4)", "whole number at least 1"):
        load(root, size=(0, 4))


def test_palette_is_read_or_made(root):
    # The PASCAL VOC development kit's first colours and its 15th ("person").
    voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128)}
    assert {value: voc_palette(16)[value] for value in voc} == voc
    assert load(root).palette == (voc[0], voc[1], voc[2])
    colours = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]  # the fourth is the void's
    (root / "classes.json").write_text(json.dumps(CLASSES | {"palette": colours}))
    assert load(root).palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def test_missing_folders_say_what_is_expected(root):
    with refused("nowhere", "no such folder", "classes.json", "images/NAME"):
        load(root / "nowhere", None)
    with refused("'tset'", "train"):
        load(root, "tset")
    for file in root.glob("train/images/*"):
        file.unlink()
    with refused("train/images: no files *.jpg, *.jpeg, *.png"):
        load(root)
    (root / "train" / "labels").rename(root / "train" / "lables")
    with refused("the folder split 'train' is empty (not found)"):
        load(root)
    assert (len(load(root, "val")), len(load(root, "all"))) == (1, 2)
    for split in ("val", "test"):
        (root / split / "labels").rename(root / split / "lables")
    with refused("no images with labels", "images/NAME", "imagesTr"):
        load(root)
    (root / "classes.json").unlink()
    with refused("classes.json", "no such file", "--suggest"):
        load(root)


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("{not json", "cannot be read as a table of classes"),
        ('["sea"]', "missing entry: classes"),
        ('{"classes": []}', "classes=[]: must be"),
        ('{"classes": ["sea", "sea"]}', "different names"),
        ('{"classes": ["sea", "land"], "ignore_index": 1}', "ignore_index=1: must be null or from 2 to 255"),
        ('{"classes": ["sea"], "palette": [[1, 2, 256]]}', "palette=[[1, 2, 256]]: must be"),
        ('{"classes": ["sea", "land"], "palette": [[1, 2, 3]]}', "has 1 colours; must be 2"),
        ('{"classes": ["sea", "land"], "colors": [[1, 2, 3]]}', "colors: must be 2 different ones"),
        ('{"classes": ["sea"], "colors": [[1, 2, 3]], "ignore_colors": [[1, 2, 3]]}', "none of ignore_colors"),
        ('{"classes": ["sea"], "ignore_colors": [[1, 2, 3]]}', "colors: must be 1"),
        ('{"classes": ["sea"], "colors": [[1, 2, 3]], "ignore_index": 9}', "must be null, because of colors"),
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
    save(labels / "z.png", LABEL)
    with refused("labels/z.png has no image", "images/c.png has no label", "; and 2 more"):
        load(root)
    for file in (labels / "z.png", *(images / f"{name}.png" for name in "cdef")):
        file.unlink()
    save_image(images / "a.jpg")
    save(labels / "b.tif", LABEL)
    with refused("images/a.png has the same name as a.jpg", "labels/b.tif has the same name as b.png"):
        load(root)
    save_image(images / "more" / "k.png")
    assert "train/images/* (1 in sub-folders such as more/ left out)" in folder(root).about.replace(
        " and train/labels/*", ""
    )


def test_wrong_values_and_sizes_are_refused(root):
    save(root / "train" / "labels" / "b.png", np.choose(LABEL % 7, np.array([0, 255, 3], np.uint8)))
    data = load(root)
    assert data[0][1].max() == 255  # the good file reads
    with refused("b.png", "unknown label value(s) 3, 255;", "allowed: 0..2 and 7 (void)"):
        data[1]
    (root / "classes.json").write_text(json.dumps(CLASSES | {"ignore_index": None}))
    with pytest.raises(InputError, match=r"a\.png: unknown label value\(s\) 7; allowed: 0\.\.2$"):
        load(root)[0]
    save_image(root / "train" / "images" / "a.png", (4, 4))
    with refused("a.png", "4 x 4 and 3 x 4"):
        data[0]


def test_load_dataset_finds_the_root_by_glam_data(root, monkeypatch):
    monkeypatch.delenv("GLAM_DATA", raising=False)
    assert dataset_of(root) == "folder"
    assert not has_dataset("folder")
    with refused("'folder'", "GLAM_DATA"):
        load_dataset("folder", "train")
    with refused("nowhere", "no such folder"):
        dataset_of(root / "nowhere")
    root.rename(root.with_name("folder"))
    monkeypatch.setenv("GLAM_DATA", str(root.parent))
    assert has_dataset("folder")
    assert len(load_dataset("folder", "train")) == 2
    for call in (lambda: load_dataset("camvidd", "train"), lambda: has_dataset("camvidd")):
        with refused("'camvidd'", "folder, camvid"):
            call()


def run_of(root, **values):
    fixed = {"study": "own", "variant": "a", "seed": 0, "profile": "cpu", "model": "swin_nano_unet", "lr": 0.1}
    data = {"train": "train", "val": "val", "test": "test"}
    values = {"steps": 1, "batch_size": 1, "dataset": "folder", "root": str(root), "data": data} | values
    return RunParameters(**fixed, **values)


def test_a_run_takes_its_data_from_root(root, capsys):
    run = run_of(root)
    assert [len(run_data(run, part)) for part in ("train", "val", "test")] == [2, 1, 1]
    assert capsys.readouterr().out.count("train: 2, train/images/* and train/labels/*;") == 1
    with refused("missing option of data: val"):
        run_data(run_of(root, data={"train": "train", "test": "x"}), "val")
    with refused("folder split 'x'"):
        run_data(run_of(root, data={"train": "train", "test": "x"}), "test")
    with refused("root=", "scenes"):
        run_data(run_of(root, dataset="scenes", data={"train": 1, "test": 1}), "train")


@pytest.mark.parametrize("in_memory", [True, False])
def test_bad_files_absent_classes_and_several_sizes_are_told_before_training(root, capsys, in_memory):
    run = run_of(root, data={"train": "train", "test": "test", "in_memory": in_memory})
    assert run_data(run, "train")[0][0].shape == (3, 3, 4)  # all of one size
    capsys.readouterr()
    for name in "ab":
        add_pair(root, f"train/{name}", np.where(LABEL == 2, 7, LABEL))
    run_data(run, "train")
    assert capsys.readouterr().err == "warning: no label of train holds ice\n"
    add_pair(root, "train/c", LABEL[:2])
    with refused("augment crop_size, or of data size", "2 x 4 and 3 x 4"):
        run_data(run, "train")
    run_data(replace(run, augment={"crop_size": [2, 2]}), "train")
    assert run_data(replace(run, data=run.data | {"size": [2, 2]}), "train")[2][1].shape == (2, 2)
    assert len(run_data(replace(run, data=run.data | {"limit": 1}), "train")) == 1
    for part in ("train", "test"):
        file = next((root / part / "images").iterdir())
        file.write_bytes(b"broken")
        with refused(str(file), "cannot be read"):
            run_data(run, part)


def test_own_labels_are_scored_at_their_own_size(root):
    run = run_of(root, data={"train": "train", "val": "val", "test": "test", "size": [6, 8]})
    assert [run_data(run, part)[0][1].shape for part in ("train", "val", "test")] == [(6, 8), (3, 4), (3, 4)]
    cropped = run_of(root, augment={"crop_size": [2, 2], "long_short": [8, 6]})
    assert view_size(3, 4, InferenceOptions.from_dict(cropped.inference | {"scales": [2.0]})) == (6, 8)


LAYOUTS = [  # of images and labels, with the split and the name; and what classes.json has to say of it
    ("{}/images/{}.png", "{}/labels/{}.png", {}),
    ("images/{}/{}.png", "annotations/{}/{}.png", {}),
    ("{}/{}.png", "{}_labels/{}.png", {}),
    ("{}/imgs/city/{}.png", "{}/masks/city/{}.png", {}),
    ("{}/images/{}_mi\u0308ne.jpg", "{}/masks/{}_mask.png", {"image_suffix": "_m\u00efne", "label_suffix": "_mask"}),
    ("{}/{}.png", "{}/{}_mask.png", {"label_suffix": "_mask"}),
    ("left/{}/{}.png", "gt/{}/{}.png", {"folders": ["left", "gt"]}),
    ("{}/{}.png", "{}/gt/{}.png", {"folders": ["", "gt"]}),
]


@pytest.mark.parametrize(("images", "labels", "entries"), LAYOUTS)
@pytest.mark.parametrize("splits", [["train"], ["training", "valid"], ["train", "test"], ["train", "val", "test"]])
def test_layouts_and_splits(tmp_path, images, labels, entries, splits):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES | entries))
    names = {split: [f"{split}{number}" for number in range(20)] for split in splits}
    for split in splits:
        for name in names[split]:
            add_pair(tmp_path, f"{split}/{name}", LABEL, images, labels)
    found = {}
    for split in ("train", "val", "test"):
        data = load(tmp_path, split)
        assert data[0][1].unique().tolist() == [0, 1, 2, 255]
        found[split] = [data.name(index) for index in range(len(data))]
    counts = {1: [14, 3, 3], 2: [17, 3, 20], 3: [20, 20, 20]}[len(splits)]
    assert "left out" not in folder(tmp_path).about
    assert {split: len(found[split]) for split in found} == dict(zip(("train", "val", "test"), counts, strict=True))
    assert sorted(chain(*found.values())) == sorted(chain(*names.values()))  # no image in two splits
    assert sorted(load(tmp_path, None).name(index) for index in range(sum(counts))) == sorted(chain(*names.values()))
    if len(splits) > 1:
        assert sorted(found["test"]) == sorted(names[splits[-1]])


def in_root(root, names, values=LABEL):
    for name in names:
        add_pair(root, name, values, "images/{}.png", "labels/{}.png")


def test_lists_name_the_images_of_a_split(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    in_root(tmp_path, "abcdefgh")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("/data/images/a.png /data/labels/a.png\nb\n\nc.png \nd\n")
    (tmp_path / "splits" / "val.txt").write_text("images/e.png\n")
    about = folder(tmp_path).about
    assert "train: 3, images/* and labels/* by train.txt; val: 1, held out of train; test: 1, images/* and" in about
    (tmp_path / "test.txt").write_text("f\ng")
    found = {split: load(tmp_path, split) for split in ("train", "val", "test", None)}
    names = {split: "".join(pair.name for pair in data.items) for split, data in found.items()}
    assert names == {"train": "abcd", "val": "e", "test": "fg", None: "abcdefg"}
    (tmp_path / "test.txt").write_text("b.png\nnone")
    with refused("b.png in test.txt is in train.txt, too", "none in test.txt has no image and label"):
        load(tmp_path, "test")


def test_too_few_images_have_no_splits_and_two_places_are_refused(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    in_root(tmp_path, "ab")
    assert len(load(tmp_path, None)) == 2
    with refused("the folder split 'train' is empty", "at least 3"):
        load(tmp_path)
    in_root(tmp_path, "c")
    assert [len(load(tmp_path, split)) for split in ("train", "val", "test")] == [1, 1, 1]
    (tmp_path / "masks").mkdir()
    with refused("several places", "labels", "masks", "folders"):
        load(tmp_path)


COLOURS = np.array([[[0, 0, 0], [9, 8, 7]], [[255, 0, 0], [1, 1, 1]]], np.uint8)
COLOUR_TABLE = {"classes": ["sea", "land"], "colors": [[255, 0, 0], [0, 0, 0]], "ignore_colors": [[1, 1, 1], [9, 8, 7]]}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_labels_may_be_colours(tmp_path, mode):
    in_root(tmp_path, "abc")
    (tmp_path / "classes.json").write_text(json.dumps(COLOUR_TABLE))
    for name in "abc":
        save_image(tmp_path / "images" / f"{name}.png", (2, 2))
        picture = Image.fromarray(COLOURS)
        (picture.quantize(8) if mode == "P" else picture.convert(mode)).save(tmp_path / "labels" / f"{name}.png")
    data = load(tmp_path, None)
    assert data[0][1].tolist() == [[1, 255], [0, 255]]
    assert data.palette == ((255, 0, 0), (0, 0, 0))
    (tmp_path / "classes.json").write_text(json.dumps(COLOUR_TABLE | {"ignore_colors": [[5, 5, 5]]}))
    with refused("labels/", "unknown label colour(s) [1, 1, 1], [9, 8, 7]; allowed: 3 colours (colors and ignore"):
        load(tmp_path, None)[0]
    problems = check_data("folder", tmp_path).problems
    assert ["unknown label colour(s)" in line for line in problems] == [True] * 3


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 255], [0, 0], [0, 1]),
        ([255, 255], [0, 255], [1, 1]),
        ([0, 1], [0, 255], "b.png: unknown label value(s) 255;"),  # is 255 void, or class 1?
        ([0, 255], [0, 1], "b.png: unknown label value(s) 1;"),
        ([1, 255], [0, 0], "a.png: unknown label value(s) 255;"),
    ],
)
def test_masks_of_0_and_255_are_two_classes(tmp_path, first, second, expected):
    (tmp_path / "classes.json").write_text('{"classes": ["sky", "ship"]}')
    in_root(tmp_path, "0", np.zeros((1, 2), np.uint8))  # tells nothing
    in_root(tmp_path, "a", np.array([first], np.uint8))
    in_root(tmp_path, "b", np.array([second], np.uint8))
    if isinstance(expected, str):
        with refused(expected):
            survey(load(tmp_path, None))
    else:
        data = load(tmp_path, None)
        assert {data.name(index): data[index][1].tolist() for index in range(3)}["a"] == [expected]


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        ([[0, 1, 2, 4]], {"classes": 5}, "0..2, 4"),
        ([[0, 1, 1, 255]], {"classes": 2, "ignore_index": 255}, "0..1, 255"),
        ([[0, 255, 0, 0]], {"classes": 2}, "0, 255"),
        ([[0, 0, 128, 200]], {"classes": 3, "colors": [[0] * 3, [128] * 3, [200] * 3]}, "3 colours"),
        (COLOURS, {"classes": 4, "colors": [[0, 0, 0], [1, 1, 1], [9, 8, 7], [255, 0, 0]]}, "4 colours"),
        (
            np.pad(COLOURS, ((0, 200), (0, 200), (0, 0)), "edge")[:, 1:],
            {"classes": 2, "colors": [[1, 1, 1], [9, 8, 7]], "ignore_colors": [[9, 9, 9]]},
            "2 colours and 1 rare ones, taken for void: [9, 9, 9]",
        ),
    ],
)
def test_a_classes_json_is_suggested_and_never_overwritten(tmp_path, values, expected, said):
    values = np.array(values, np.uint8)
    if said.startswith("2 colours"):
        values[0, 5] = 9
    for name in "abc":
        add_pair(tmp_path, f"train/{name}", values, "images/{1}_image.png", "labels/{1}_mask.png")
    (tmp_path / "labels" / ".DS_Store").write_bytes(b"x")
    assert said in suggest_classes(tmp_path)
    table = json.loads((tmp_path / "classes.json").read_text())
    assert [table.pop("image_suffix"), table.pop("label_suffix")] == ["_image", "_mask"]
    classes = [f"class_{number}" for number in range(expected["classes"])]
    assert table == expected | {"classes": classes}
    assert survey(load(tmp_path, None))[0] in ([], ["class_3"])
    with refused("classes.json", "not overwritten"):
        suggest_classes(tmp_path)


def test_why_no_classes_json_is_suggested(tmp_path):
    add_pair(tmp_path, "train/soft", np.arange(256, dtype=np.uint8).reshape(16, 16))
    with refused("its 1 labels have 256 values, as masks with soft edges"):
        suggest_classes(tmp_path)
    (tmp_path / "train/labels/soft.png").write_bytes(b"none")
    save_image(tmp_path / "train/images/bare.png")  # is not why
    with refused("cannot be read; ", "soft.png: cannot be read as an image"):
        suggest_classes(tmp_path)
    (tmp_path / "train/images/soft.png").rename(tmp_path / "train/images/other.png")
    with refused("nothing pairs up; ", "soft.png has no image; an image and its label must have one name"):
        suggest_classes(tmp_path)

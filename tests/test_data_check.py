import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from test_published_images import save

from glamlib.cli import main
from glamlib.data.check import check_data


def add_pair(folder, name, values):
    save(folder / "labels" / f"{name}.png", values)
    save(folder / "images" / f"{name}.png", np.full((*np.shape(values), 3), 99))


@pytest.fixture
def root(tmp_path):
    """A good folder: train has 6 sea, 2 land and 2 void pixels in two sizes, val and test 1 land pixel."""
    (tmp_path / "classes.json").write_text('{"classes": ["sea", "land"], "ignore_index": 9}')
    add_pair(tmp_path / "train", "a", [[0, 0, 1], [0, 0, 9]])
    add_pair(tmp_path / "train", "b", [[0, 0], [1, 9]])
    add_pair(tmp_path / "test", "c", [[1]])
    add_pair(tmp_path / "val", "v", [[1]])
    return tmp_path


def test_good_data_are_counted(root):
    report = check_data("folder", root)
    found = json.loads(json.dumps(report.to_dict()))
    splits = found.pop("splits")
    assert found.pop("about").endswith("test: 1, test/images/* and test/labels/*; labels: 0..1 and 9 (void)")
    warnings = ["no label of val holds sea", "no label of test holds sea"]
    assert found == {"name": "folder", "path": str(root), "ok": True, "problems": [], "warnings": warnings}
    assert splits["test"]["class_percent"] == {"sea": 0.0, "land": 100.0}
    assert splits["train"] == {
        "pairs": 2,
        "sizes": {"2 x 2": 1, "2 x 3": 1},
        "class_numbers": [0, 1, 255],
        "class_percent": {"sea": 75.0, "land": 25.0},
        "void_percent": 20.0,
    }
    text = report.render()
    for line in ("train: 2 pairs; height x width: 2 x 2..3; class numbers: 0..1, 255", "0 problem(s)"):
        assert line in text
    assert [line.split() for line in text.splitlines() if line.startswith("sea")] == [["sea", "75.00", "0.00", "0.00"]]


def test_every_bad_file_is_named(root):
    train = root / "train"
    for name in ("cut", "wide", "colour", "range", "both"):
        add_pair(train, name, [[0, 0], [1, 9]])
    save(train / "labels" / "lonely.png", [[0]])
    save(train / "images" / "bare.png", np.zeros((1, 1, 3)))
    save(train / "images" / "wide.png", np.zeros((2, 3, 3)))
    save(train / "labels" / "colour.png", np.zeros((2, 2, 3)))
    save(train / "labels" / "range.png", [[0, 7], [8, 9]])
    for file in (train / "images" / "cut.png", train / "images" / "both.png", train / "labels" / "both.png"):
        file.write_bytes(file.read_bytes()[:40])
    add_pair(root / "test", "late", [[5]])

    report = check_data("folder", root)
    expected = [
        (f"{root / 'test'}", "late.png", "unknown label value(s) 5; allowed: 0..1 and 9 (void)"),
        (str(train / "images" / "bare.png"), "has no label"),
        (str(train / "labels" / "lonely.png"), "has no image"),
        (str(train / "images" / "both.png"), "cannot be read"),
        (str(train / "labels" / "both.png"), "cannot be read"),
        (str(train / "labels" / "colour.png"), "RGB"),
        (str(train / "images" / "cut.png"), "cannot be read"),
        (str(train / "labels" / "range.png"), "value(s) 7, 8;"),
        ("wide.png", "2 x 3 and 2 x 2"),
    ]
    assert not report.ok
    assert len(report.problems) == len(expected), report.problems
    for needles in expected:
        assert any(all(needle in line for needle in needles) for line in report.problems), needles
    assert all(line in report.render() for line in ["9 problem(s)", *report.problems])
    assert report.splits["train"]["pairs"] == 7
    # The counts are those of the labels that could be read: a, b, cut, wide.
    assert report.splits["train"]["class_percent"] == pytest.approx({"sea": 100 * 10 / 14, "land": 100 * 4 / 14})


def test_bad_or_missing_classes_json_is_a_problem_and_the_files_are_read_all_the_same(root):
    (root / "train" / "images" / "a.png").write_bytes(b"x")
    for spoil in (lambda file: file.write_text("{"), lambda file: file.unlink()):
        spoil(root / "classes.json")
        report = check_data("folder", root)
        assert len(report.problems) == 2
        assert "classes.json" in report.problems[0]
        assert "a.png" in report.problems[1]
        assert report.splits["train"]["class_percent"] == {}
        assert "class numbers: 0..1, 9" in report.render()


def test_a_folder_without_images_or_with_dark_ones_is_told(tmp_path):
    (tmp_path / "classes.json").write_text('{"classes": ["sea", "land"]}')
    (problem,) = check_data("folder", tmp_path).problems
    assert "no images with labels; expected" in problem
    for name in "abcd":
        add_pair(tmp_path, name, [[0, 1]])
    Image.fromarray(np.full((1, 2), 4095, np.uint16)).save(tmp_path / "images" / "a.png")  # 12 bits
    report = check_data("folder", tmp_path)
    assert report.ok
    assert [f"{tmp_path}/images/a.png: nearly black, its values end at 15 of 255"] == report.warnings


def test_an_incomplete_camvid_is_reported(tmp_path):
    add_pair(tmp_path / "train", "a", [[0, 1, 11, 11]])
    report = check_data("camvid", tmp_path)
    needles = ["no CamVid val split", "no CamVid test split", "1 pairs; CamVid train has 367"]
    assert all(needle in line for needle, line in zip(needles, report.problems, strict=True))
    assert report.splits["train"]["void_percent"] == 50
    (warning,) = report.warnings
    assert warning.startswith("no label of train holds Pole, Road, Sidewalk")


def test_labels_that_are_all_void_are_warnings(root):
    add_pair(root / "train", "empty", [[9, 9]])
    report = check_data("folder", root)
    assert report.ok
    assert report.warnings[0] == f"{root}/train/labels/empty.png: all pixels are void"
    assert "3 warning(s)" in report.render()
    for name in "de":  # as in a published test split, whose labels are kept back
        add_pair(root / "test", name, [[9, 9]])
    add_pair(root / "test", "c", [[9]])
    assert "test: all pixels are void, in all 3 labels" in check_data("folder", root).warnings


@pytest.mark.parametrize(
    ("classes", "values", "problem", "warnings"),
    [
        # masks of 0 and 255, with 255 meant as a class and declared as void
        (["sky", "ship"], [[0, 255]], "every labelled pixel is 'sky'; allowed: two", ["no label of val holds ship"]),
        (["ship"], [[0, 255]], "every labelled pixel is 'ship'", []),
        (["sky", "ship"], [[255, 255]], "no pixel belongs to a class", ["a.png: all pixels are void"]),
        (["sky", "ship", "sea"], [[0, 1]], None, ["no label of val holds sea"]),
        (["sky", "ship"], [[0, 1]], None, []),
    ],
)
def test_classes_that_occur_nowhere(tmp_path, classes, values, problem, warnings):
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    add_pair(tmp_path, "a", values)
    report = check_data("folder", tmp_path)
    assert len(report.problems) == (problem is not None)
    assert problem is None or problem in report.problems[0]
    assert {f"the split '{split}' is empty" for split in ("train", "test")} < {*report.warnings, ""}
    found = [line for line in report.warnings if "is empty" not in line]
    assert all(warning in line for warning, line in zip(warnings, found, strict=True))


def test_a_turned_photo_and_its_upright_label_are_named(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "train" / "images" / "a.png"
    Image.open(path).save(path, exif=exif)  # stored as 2 x 3, as its label is; shown as 3 x 2
    (problem,) = check_data("folder", root).problems
    assert "a.png and a.png differ in size: 3 x 2 and 2 x 3" in problem


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_names_that_the_terminal_cannot_print_end_in_no_traceback(root, monkeypatch, encoding, options):
    bad = os.fsdecode("\N{SNOWMAN}".encode() + b"\xff")
    (root / "train" / "images" / "a.png").rename(root / "train" / "images" / f"a{bad}.png")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    assert main(["check-data", "folder", str(root), *options]) == 1
    sys.stdout.flush()
    assert b"\\udcff" in printed.getvalue()
    assert b"has no label" in printed.getvalue()

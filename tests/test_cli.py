"""The command line, as other programs call it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import parameters_of, refused_by_main, write_folder

from glamlib import create_model, list_models
from glamlib.cli import main
from glamlib.cost.count import COMPONENTS, count_macs


def test_models_lists_one_name_a_line(capsys):
    for arguments, expected in (([], list_models()), (["*_tiny_*"], list_models("*_tiny_*")), (["nothing"], [])):
        assert main(["models", *arguments]) == 0
        assert capsys.readouterr().out.splitlines() == expected


def test_a_reader_that_leaves_early_is_no_error():
    """As `models | head -1` does, before what is printed fills the pipe's buffer, and after."""
    for arguments in (["models"], ["cost", "swin_nano_linear", "--size", "64", "64"]):
        command = [sys.executable, "-m", "glamlib", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_cost_prints_a_readable_table(capsys):
    assert main(["cost", "swin_nano_linear", "--size", "64", "96", "--classes", "3"]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    for word in ("swin_nano_linear", "64 x 96", "3 classes"):
        assert word in head
    assert columns.split() == ["component", "parameters", "gmacs"]
    table = {name: (int(count.replace(",", "")), float(gmacs)) for name, count, gmacs in map(str.split, rows)}
    assert table.keys() == {*COMPONENTS, "total"}
    counted = parameters_of(create_model("swin_nano_linear", num_classes=3))
    assert table["total"][0] == counted == sum(table[name][0] for name in COMPONENTS)
    assert table["total"][1] == pytest.approx(sum(table[name][1] for name in COMPONENTS), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("glam_swin_nano_upernet", {"height": 61, "width": 75}),
        ("nnformer_nano", {"depth": 32, "height": 16, "width": 24}),
    ],
)
def test_cost_as_json_for_other_programs(name, size, capsys):
    assert main(["cost", name, "--size", *map(str, size.values()), "--json"]) == 0
    text, warnings = capsys.readouterr()
    assert (text.count("\n"), warnings) == (1, "")
    values = json.loads(text)
    counts = {key: values.pop(key) for key in ("parameters", "gmacs")}
    # also: the model of no memory left nothing behind
    model = create_model(name, num_classes=150, in_channels=1 if "depth" in size else 3)
    assert values == {"name": name, "classes": 150} | size
    for count in counts.values():
        assert list(count) == ["total", *COMPONENTS]
        assert count["total"] == pytest.approx(sum(count[name] for name in COMPONENTS))
    assert counts["parameters"]["total"] == parameters_of(model)
    assert counts["gmacs"]["total"] == count_macs(model, **size)["total"] / 1e9


@pytest.mark.parametrize(
    ("arguments", "needles"),
    [
        (["cost", "swin_nano_linear", "--size", "0", "64"], ["size=0 64: ", "takes height, width, each at least 1"]),
        (["cost", "swin_nano_linear", "--size", "64", "64", "--classes", "0"], ["num_classes=0: must be"]),
        (["cost", "nnformer", "--size", "64", "64"], ["size=64 64: nnformer takes depth, height, width"]),
        (["cost", "glam_huge", "--size", "64", "64"], ["unknown model 'glam_huge'", *list_models()]),
        (["check-data", "foldr", "."], ["unknown dataset to check 'foldr'; allowed: "]),
        (["check-data", "folder", "no/such/place"], ["no/such/place: no such folder"]),
        (["check-data", "camvid", "no/such/place", "--suggest"], ["--suggest: camvid needs no classes.json"]),
        (["check-data", "folder", "x" * 300], ["File name too long"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, needles, capsys):
    refused_by_main(capsys, arguments, *needles)


@pytest.mark.parametrize(
    "arguments",
    [[], ["cots"], ["cost", "swin_nano_linear"], ["cost", "swin_nano_linear", "--size", "64"], ["models", "a", "b"]],
    ids=" ".join,
)
def test_bad_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_good_data_is_status_0_and_bad_data_status_1(tmp_path, capsys):
    pair, folder = (np.zeros((6, 8, 3), np.uint8), np.tri(6, 8, dtype=np.uint8)), tmp_path
    write_folder(folder / "train", [pair, pair])
    (folder / "classes.json").write_text(json.dumps({"classes": ["ground", "thing"], "ignore_index": 255}))
    assert main(["check-data", "folder", str(folder)]) == 0
    assert "0 problem(s)" in capsys.readouterr().out
    assert main(["check-data", "folder", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], sum(split["pairs"] for split in report["splits"].values())) == (True, 2)
    (folder / "classes.json").unlink()
    for number in range(12):  # images without labels, and the problem that comes first stays in sight
        (folder / "train" / "images" / f"alone{number}.png").write_bytes(b"")
    assert main(["check-data", "folder", str(folder)]) == 1
    lines = capsys.readouterr().out.partition(" problem(s)\n")[2].split("\n\n")[0].splitlines()
    assert (len(lines), "classes.json" in lines[0], lines[-1]) == (6, True, "  and 8 more; --json lists them all")
    for file in folder.glob("train/images/alone*.png"):
        file.unlink()
    assert main(["check-data", "folder", str(folder), "--suggest"]) == 0
    assert "written for the values" in capsys.readouterr().err
    assert main(["check-data", "folder", str(folder), "--suggest"]) == 2
    assert "not overwritten" in capsys.readouterr().err
    (folder / "train" / "images" / "01.png").write_bytes(b"no picture")
    assert main(["check-data", "folder", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [("01.png" in problem) for problem in report["problems"]] == [True]

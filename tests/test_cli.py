"""The command line, as other programs call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

from glamlib import create_model, list_models
from glamlib.cli import main
from glamlib.cost.count import COMPONENTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good dataset of the form "folder": two images with labels, classes 0 and 1, void 255."""
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["ground", "thing"], "ignore_index": 255}))
    for kind, pixels in (("images", np.zeros((6, 8, 3), np.uint8)), ("labels", np.tri(6, 8, dtype=np.uint8))):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(pixels).save(tmp_path / "train" / kind / f"{name}.png")
    return tmp_path


def test_models_lists_one_name_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (([], list_models()), (["*_tiny_*"], list_models("*_tiny_*")), (["nothing"], [])):
        assert main(["models", *arguments]) == 0
        assert capsys.readouterr().out.splitlines() == expected


def test_cost_prints_a_readable_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "swin_nano_linear", "--size", "64", "96", "--classes", "3"]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    for word in ("swin_nano_linear", "64 x 96", "3 classes"):
        assert word in head
    assert columns.split() == ["component", "parameters", "gmacs"]
    table = {name: (int(count.replace(",", "")), float(gmacs)) for name, count, gmacs in map(str.split, rows)}
    assert table.keys() == {*COMPONENTS, "total"}
    counted = sum(p.numel() for p in create_model("swin_nano_linear", num_classes=3).parameters())
    assert table["total"][0] == counted == sum(table[name][0] for name in COMPONENTS)
    assert table["total"][1] == pytest.approx(sum(table[name][1] for name in COMPONENTS), abs=1e-5)


def test_cost_at_150_classes_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "swin_nano_linear", "--size", "5", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 150
    assert torch.zeros(1).device.type == "cpu"  # the model of no memory left nothing behind


@pytest.mark.parametrize(
    ("arguments", "needles"),
    [
        (["cost", "swin_nano_linear", "--size", "0", "64"], ["size=0 64: height and width must be at least 1"]),
        (["cost", "swin_nano_linear", "--size", "64", "64", "--classes", "0"], ["num_classes=0: must be"]),
        (["cost", "nnformer", "--size", "64", "64"], ["size=64 64: nnformer takes a depth, a height and a width"]),
        (["cost", "glam_huge", "--size", "64", "64"], ["unknown model 'glam_huge'", *list_models()]),
        (["check-data", "foldr", "."], ["unknown dataset to check 'foldr'; allowed: "]),
        (["check-data", "folder", "no/such/place"], ["no/such/place: no such folder"]),
        (["check-data", "camvid", "no/such/place", "--suggest"], ["--suggest: camvid needs none"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], needles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert [needle for needle in needles if needle not in err] == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["cots"], ["cost", "swin_nano_linear"], ["cost", "swin_nano_linear", "--size", "64"], ["models", "a", "b"]],
    ids=" ".join,
)
def test_bad_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_good_data_is_status_0_and_bad_data_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "folder", str(folder)]) == 0
    assert "0 problem(s)" in capsys.readouterr().out
    assert main(["check-data", "folder", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], sum(split["pairs"] for split in report["splits"].values())) == (True, 2)
    (folder / "classes.json").unlink()
    assert main(["check-data", "folder", str(folder), "--suggest"]) == 0
    assert "written for the values" in capsys.readouterr().err
    assert main(["check-data", "folder", str(folder), "--suggest"]) == 2
    assert "not overwritten" in capsys.readouterr().err
    (folder / "train" / "images" / "b.png").write_bytes(b"no picture")
    assert main(["check-data", "folder", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [("b.png" in problem) for problem in report["problems"]] == [True]


@pytest.mark.slow
def test_cost_as_json_for_other_programs() -> None:
    command = [sys.executable, "-m", "glamlib", "cost", "glam_swin_nano_upernet", "--size", "61", "75"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, "--classes", "4", "--json"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads(done.stdout)
    assert values.keys() == {"name", "height", "width", "classes", "parameters", "gmacs"}
    given = {"name": "glam_swin_nano_upernet", "height": 61, "width": 75, "classes": 4}
    assert given.items() <= values.items()
    for key in ("parameters", "gmacs"):
        assert values[key].keys() == {"total", *COMPONENTS}
        assert values[key]["total"] == pytest.approx(sum(values[key][name] for name in COMPONENTS))
    model = create_model("glam_swin_nano_upernet", num_classes=4)
    assert values["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert [name for name in ("models", "cost", "check-data", "train", "compare", "evaluate") if name not in text] == []

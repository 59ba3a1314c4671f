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


def glamlib(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "glamlib", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def fails_in_one_line(done: subprocess.CompletedProcess[str], *needles: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for needle in needles:
        assert needle in done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good dataset of the form "folder": two images with labels, classes 0 and 1, void 255."""
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["ground", "thing"], "ignore_index": 255}))
    for kind, shape in (("images", (6, 8, 3)), ("labels", (6, 8))):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(np.ones(shape, np.uint8)).save(tmp_path / "train" / kind / f"{name}.png")
    return tmp_path


def test_models_lists_one_name_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == list_models()
    assert main(["models", "glam_*_tiny_*"]) == 0
    assert capsys.readouterr().out.splitlines() == list_models("glam_*_tiny_*")
    assert main(["models", "nothing"]) == 0
    assert capsys.readouterr().out == ""


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
    ("arguments", "needle"),
    [
        (["cost", "swin_nano_linear", "--size", "0", "64"], "size=0 64: height and width must be at least 1"),
        (["cost", "swin_nano_linear", "--size", "64", "64", "--classes", "0"], "num_classes=0: must be"),
        (["check-data", "foldr", "."], "unknown dataset to check 'foldr'; allowed: camvid, folder"),
        (["check-data", "folder", "no/such/place"], "no/such/place: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], needle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert needle in err


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


def test_good_data_is_status_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", "folder", str(folder)]) == 0
    assert "0 problem(s)" in capsys.readouterr().out
    assert main(["check-data", "folder", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["splits"]["train"]["pairs"] == 2


def test_bad_data_is_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train" / "images" / "b.png").write_bytes(b"no picture")
    assert main(["check-data", "folder", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [("b.png" in problem) for problem in report["problems"]] == [True]


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from glamlib.cli import main; main(['models', '--help'])"
    check = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", check + code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "--help" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_help_names_the_commands() -> None:
    done = glamlib("--help")
    assert done.returncode == 0
    for command in ("models", "cost", "check-data"):
        assert command in done.stdout


@pytest.mark.slow
def test_cost_as_json_for_other_programs() -> None:
    done = glamlib("cost", "glam_swin_nano_upernet", "--size", "61", "75", "--classes", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    values = json.loads(done.stdout)
    assert values.keys() == {"name", "height", "width", "classes", "parameters", "gmacs"}
    given = {"name": "glam_swin_nano_upernet", "height": 61, "width": 75, "classes": 4}
    assert given.items() <= values.items()
    for key in ("parameters", "gmacs"):
        assert values[key].keys() == {"total", *COMPONENTS}
        assert values[key]["total"] == pytest.approx(sum(values[key][name] for name in COMPONENTS))
    model = create_model("glam_swin_nano_upernet", num_classes=4)
    assert values["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
def test_an_unknown_model_lists_all_without_a_traceback() -> None:
    done = glamlib("cost", "glam_swin_huge_upernet", "--size", "64", "64")
    fails_in_one_line(done, "unknown model 'glam_swin_huge_upernet'", *list_models())


@pytest.mark.slow
def test_check_data_on_a_bad_folder_as_a_program(folder: Path) -> None:
    (folder / "train" / "labels" / "a.png").unlink()
    Image.fromarray(np.full((6, 8), 9, np.uint8)).save(folder / "train" / "labels" / "b.png")
    done = glamlib("check-data", "folder", str(folder))
    assert done.returncode == 1
    assert done.stderr == ""
    assert "2 problem(s)" in done.stdout
    for needle in ("a", "b.png"):
        assert needle in done.stdout.split("2 problem(s)")[1]

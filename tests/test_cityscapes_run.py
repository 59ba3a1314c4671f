"""Cityscapes' paper profile end to end, at tiny size, as the README launches it: record, server's files."""

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from glamlib.cli import main
from glamlib.data.cityscapes import RAW_IDS, CITYSCAPES
from glamlib.runs import plan
from glamlib.runs.records import read_record
from glamlib.studies import find_study

NAMES = {
    "train": [f"aachen_{number:06}_000019" for number in range(3)] + ["zurich_000000_000019"],
    "val": ["frankfurt_000000_000294", "lindau_000000_000019", "munster_000000_000019"],
    "test": ["berlin_000000_000019", "bonn_000000_000019"],
}
PLANNED = find_study("cityscapes").run("glam_10_tiny_upernet", 91, "paper")
# Smaller pictures, network and batch, and a processor; all else is the profile's
SMALLER = {
    "model": "glam_swin_nano_upernet",
    "overrides": PLANNED.overrides | {"num_global_tokens": 2},
    "pretrained": "",
    "augment": PLANNED.augment | {"crop_size": [64, 128], "long_short": [160, 80]},
    "evaluate": {"resize": [160, 80]},
    "device": "cpu",
    "precision": "bf16",
    "steps": 3,
    "batch_size": 8,
    "accumulate": 2,
    "workers": 1,
}


def write_tiny(root: Path) -> None:
    """Write pictures of 80 x 160 in the layout of the real set, with the files that lie beside; test has dummies."""
    generator = np.random.default_rng(0)
    for split, names in NAMES.items():
        for name in names:
            city = name.split("_")[0]
            picture, labels = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
            picture.mkdir(parents=True, exist_ok=True)
            labels.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(256, size=(80, 160, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(picture / f"{name}_leftImg8bit.png")
            ids = np.repeat(np.repeat(generator.integers(34, size=(5, 10), dtype=np.uint8), 16, 0), 16, 1)
            ids = np.full_like(ids, 3) if split == "test" else ids
            for end in ("labelIds", "instanceIds", "color"):
                Image.fromarray(ids).save(labels / f"{name}_gtFine_{end}.png")
            (labels / f"{name}_gtFine_polygons.json").write_text("{}")


@pytest.mark.slow
def test_profile_at_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    root, results, weights = tmp_path / "cityscapes", tmp_path / "results", tmp_path / "w.safetensors"
    write_tiny(root)
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps({"parameters": PLANNED.to_dict(), "code": ""}))
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "glamlib", "train", "--plan", str(plan_file), "--out", str(results), "--weights", str(weights)]
    changes = [f"{name}={json.dumps(value)}" for name, value in SMALLER.items()]
    done = subprocess.run(
        [*launcher, *command, "--set", *changes],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    folder = results / "runs/cityscapes/glam_10_tiny_upernet/seed-91"
    assert [str(path.relative_to(results)) for path in results.rglob("record.json")] == [
        str((folder / "record.json").relative_to(results))
    ]
    assert not (folder / "checkpoint.safetensors").exists()
    record = read_record(folder / "record.json")
    assert record["parameters"] == json.loads(json.dumps(PLANNED.to_dict() | SMALLER))
    assert len(record["metrics"]["iou"]) == 19
    validation = CITYSCAPES.open(root, "val")
    valid = sum(int((validation[index][1] != 255).sum()) for index in range(3))
    assert np.sum(record["metrics"]["confusion"]) == valid  # three images over two processes, each once
    last = (folder / "history.csv").read_text().splitlines()[-1].split(",")
    assert float(last[2]) == pytest.approx(6e-5 * (1e-6 + (1 - 1e-6) * 2 / 1500))  # the third step of the warm-up

    capsys.readouterr()
    out, source = tmp_path / "out", root / "leftImg8bit" / "test"
    assert main(["predict", str(weights), str(source), "--out", str(out), "--device", "cpu", "--raw-ids"]) == 0
    files = sorted(path.name for path in (out / "raw_ids").iterdir())
    # as the server's getPrediction looks for them
    assert [fnmatch.filter(files, f"{name}*.png") for name in NAMES["test"]] == [[file] for file in files]
    for name in NAMES["test"]:
        with (
            Image.open(out / "raw_ids" / f"{name}_labelIds.png") as raw,
            Image.open(out / "labels" / f"{name}_leftImg8bit.png") as classes,
        ):
            assert raw.size == (160, 80)
            assert (np.array(raw) == np.array(RAW_IDS)[np.array(classes)]).all()


def test_plan_takes_the_sets_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan` finds the set where GLAM_DATA has it and says what is left out; the list is of its runs alone."""
    (tmp_path / "data" / "cityscapes").mkdir(parents=True)
    monkeypatch.setenv("GLAM_DATA", str(tmp_path / "data"))
    places = ["--build", str(tmp_path / "build"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["plan", "--profile", "paper", *places])
    plan.main()
    expected = "profile paper: 22 runs of cityscapes; left out, their data are not there: ade20k\n"
    assert capsys.readouterr().out == expected
    targets = (tmp_path / "build/plan.mk").read_text()
    assert targets.count("/record.json") == 22
    assert "$(RESULTS)/tables/cityscapes.csv" in targets


def test_raw_ids_are_of_cityscapes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, out = tmp_path / "w.safetensors", tmp_path / "out"
    names = ["--study", "context", "--variant", "glam_2", "--seed", "92", "--profile", "quick", "--set", "steps=1"]
    data = json.dumps({"size": 32, "num_shapes": 1, "train": 2, "test": 1})
    sizes = ["batch_size=2", "warmup_steps=0", f"data={data}"]
    assert main(["train", "--out", str(tmp_path), "--weights", str(weights), *names, *sizes]) == 0
    Image.new("RGB", (40, 36)).save(tmp_path / "bonn_000000_000019_leftImg8bit.png")
    capsys.readouterr()
    picture = str(tmp_path / "bonn_000000_000019_leftImg8bit.png")
    assert main(["predict", str(weights), picture, "--out", str(out), "--raw-ids"]) == 2
    assert "raw ids: glam_swin_nano_linear was trained on scenes, not on Cityscapes' classes" in capsys.readouterr().err
    assert not out.exists()

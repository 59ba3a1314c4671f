"""The paper's profile: its values, and Cityscapes' end to end at tiny size, as the README launches it."""

import fnmatch
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import python
from PIL import Image
from test_published_images import add_street
from torch import distributed

from glamlib.cli import main
from glamlib.data.datasets import load_dataset
from glamlib.data.published import LABELS
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.runs.records import read_record
from glamlib.studies import find_study
from glamlib.training.tasks import task_of
from glamlib.zoo import model_config

NAMES = {
    "train": [f"aachen_{number:06}_000019" for number in range(3)] + ["zurich_000000_000019"],
    "val": ["frankfurt_000000_000294", "lindau_000000_000019", "munster_000000_000019"],
    "test": ["berlin_000000_000019", "bonn_000000_000019"],
}
PLANNED = find_study("cityscapes").run("glam_10_tiny_upernet", 91, "paper")
# Smaller pictures, network and batch, and a processor; all else is the profile's
SMALLER = {
    "model": "glam_swin_nano_upernet",
    "overrides": PLANNED.overrides | {"num_global_tokens": 2, "decoder_channels": 32},
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
    """Write pictures of 80 x 160 in the layout of the real set; test has dummies of labels."""
    generator = np.random.default_rng(0)
    for split, names in NAMES.items():
        for name in names:
            ids = generator.integers(34, size=(5, 10), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            pixels = generator.integers(256, size=(80, 160, 3), dtype=np.uint8)
            add_street(root, split, name, np.full_like(ids, 3) if split == "test" else ids, pixels=pixels)


@pytest.mark.parametrize(
    ("study", "crop_size", "long_short"),
    [("ade20k", [512, 512], [2048, 512]), ("cityscapes", [512, 1024], [2048, 1024])],
)
def test_runs_are_those_of_the_released_configurations(study, crop_size, long_short):
    """Source: themyrl/glam at 44abe55."""
    runs = find_study(study).runs("paper")
    tokens = {"upernet": {"tiny": [1, 5, 10, 15], "small": [10], "base": [10]}}
    tokens["unet"] = {"tiny": [1, 5, 10, 15], "small": [1, 5, 10], "base": [1, 5, 10]}
    expected = {
        (f"{'glam_' if number else ''}swin_{size}_{decoder}", number)
        for decoder, sizes in tokens.items()
        for size, numbers in sizes.items()
        for number in [0, *numbers]
    }
    assert {(run.model, run.overrides.get("num_global_tokens", 0)) for run in runs} == expected
    assert len(runs) == len(expected) == 22
    for run in runs:
        assert (run.steps, run.batch_size, run.warmup_steps) == (160_000, 16, 1500)
        assert (run.lr, run.weight_decay, run.clip_norm, run.decay) == (6e-5, 0.01, 0.0, "released")
        assert run.pretrained == "imagenet"
        assert run.augment["crop_size"] == crop_size
        assert run.augment["long_short"] == run.evaluate["resize"] == long_short
        assert (run.augment["cat_max_ratio"], run.augment["scale_range"]) == (0.75, [0.5, 2.0])
        config = model_config(run.model, **run.overrides)
        assert (config.drop_path, config.window_size, config.behaviour) == (0.3, 7, "paper")


@pytest.mark.slow
def test_profile_at_tiny_size(tmp_path, monkeypatch, capsys):
    root, results, weights = tmp_path / "cityscapes", tmp_path / "results", tmp_path / "w.safetensors"
    write_tiny(root)
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps({"parameters": PLANNED.to_dict(), "code": ""}))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    command = ("-m", "glamlib", "train", "--plan", plan_file, "--out", results, "--weights", weights)
    changes = [f"{name}={json.dumps(value)}" for name, value in SMALLER.items()]
    done = python(*launcher, *command, "--set", *changes)
    assert done.returncode == 0, done.stderr[-3000:]

    folder = results / "runs/cityscapes/glam_10_tiny_upernet/seed-91"
    assert [*results.rglob("record.json")] == [folder / "record.json"]
    assert not (folder / "checkpoint.safetensors").exists()
    record = read_record(folder / "record.json")
    assert record["parameters"] == json.loads(json.dumps(PLANNED.to_dict() | SMALLER))
    assert len(record["metrics"]["iou"]) == 19
    validation = load_dataset("cityscapes", "val", root=root)
    valid = sum(int((validation[index][1] != 255).sum()) for index in range(3))
    assert np.sum(record["metrics"]["confusion"]) == valid  # three images over two processes, each once
    last = (folder / "history.csv").read_text().splitlines()[-1].split(",")
    assert float(last[2]) == pytest.approx(6e-5 * (1e-6 + (1 - 1e-6) * 2 / 1500))  # the third step of the warm-up

    capsys.readouterr()
    out, source = tmp_path / "out", root / "leftImg8bit" / "test"
    assert main(["predict", str(weights), str(source), "--out", str(out), "--device", "cpu", "--raw-ids"]) == 0
    files = sorted(path.name for path in (out / "raw_ids").rglob("*.png"))
    # as the server's getPrediction looks for them
    assert [fnmatch.filter(files, f"{name}*.png") for name in NAMES["test"]] == [[file] for file in files]
    for name in NAMES["test"]:
        city = name.partition("_")[0]
        raw = np.array(Image.open(out / "raw_ids" / city / f"{name}_labelIds.png"))
        classes = np.array(Image.open(out / "labels" / city / f"{name}_leftImg8bit.png"))
        assert np.array_equal(raw, np.array(LABELS["cityscapes"].values)[classes])


@pytest.mark.parametrize(("processes", "accumulate", "batch"), [(1, 1, 16), (1, 8, 2), (8, 1, 2), (8, 4, 1)])
def test_whole_images_come_no_more_at_once_than_crops(processes, accumulate, batch, monkeypatch):
    """16 images of Cityscapes at once do not fit where 2 crops a process do, and that would show after days."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: processes > 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: processes)

    def evaluate(model, dataset, batch_size, *arguments, **others):
        raise StopIteration(batch_size)  # which carries it out

    monkeypatch.setattr("glamlib.training.tasks.evaluate", evaluate)
    run = replace(find_study("ade20k").run("glam_10_tiny_upernet", 1, "paper"), accumulate=accumulate)
    with pytest.raises(StopIteration, match=f"^{batch}$"):
        task_of(run).evaluate(torch.nn.Identity(), CueScenes(SceneConfig(size=32, num_shapes=1), 1, 0), run)

"""The paper's profile: its values, a rehearsal at tiny size, and what is said before it runs."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_study_files import run_module
from torch import distributed

from glamlib.bench import step
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.evaluation.metrics import ConfusionMatrix
from glamlib.runs import plan
from glamlib.runs.run import build_model
from glamlib.studies import find_study
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import run_datasets
from glamlib.training.loop import train
from glamlib.training.tasks import task_of
from glamlib.zoo import model_config


@pytest.mark.parametrize(
    ("study", "crop_size", "long_short"),
    [("ade20k", [512, 512], [2048, 512]), ("cityscapes", [512, 1024], [2048, 1024])],
)
def test_runs_are_those_of_the_released_configurations(study: str, crop_size: list, long_short: list) -> None:
    """shared METHOD.md, section 4 (themyrl/glam at 44abe55)."""
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


def ade20k(root: Path) -> None:
    """Write a set in the layout of ADEChallengeData2016, of images of different sizes."""
    generator = np.random.default_rng(0)
    for part, split in (("training", "train"), ("validation", "val")):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for number, (height, width) in enumerate([(60, 90), (72, 50)], start=1):
            name = f"ADE_{split}_{number:08}"
            pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / part / f"{name}.jpg")
            classes = generator.integers(151, size=(height, width), dtype=np.uint8)
            Image.fromarray(classes).save(root / "annotations" / part / f"{name}.png")


@pytest.mark.slow
def test_recipe_at_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, augmentation, groups, schedule and evaluation of the profile, with a small network and small crops."""
    ade20k(tmp_path / "ade20k")
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    run = find_study("ade20k").run("glam_10_tiny_upernet", 0, "paper")
    run = replace(
        run,
        model="glam_swin_nano_upernet",
        overrides=run.overrides | {"num_global_tokens": 2},
        pretrained="",
        augment=run.augment | {"crop_size": [64, 64], "long_short": [256, 64]},
        evaluate={"resize": [256, 64]},
        device="cpu",
        steps=2,
        batch_size=4,
        accumulate=2,
        workers=0,
    )
    train_data, test_data = run_datasets(run)
    model = build_model(run, train_data)
    history, _ = train(model, train_data, run, tmp_path / "run.safetensors")
    assert history[0]["lr"] == pytest.approx(6e-5 * (1e-6 + (1 - 1e-6) / 1500))  # the second step of the warm-up
    metrics, _ = task_of(run).evaluate(model, test_data, run)
    labels = [test_data[index][1] for index in range(2)]
    assert np.sum(metrics["confusion"]) == sum(int((label != 255).sum()) for label in labels)


@pytest.mark.parametrize(("processes", "turns", "batch"), [(1, 1, 16), (1, 8, 2), (8, 1, 2), (8, 4, 1)])
def test_whole_images_come_no_more_at_once_than_crops(
    processes: int, turns: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 images of Cityscapes at once do not fit where 2 crops a process do, and that would show after days."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: processes > 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: processes)
    seen: list[int] = []

    def evaluate(model, dataset, batch_size, *arguments, **others) -> ConfusionMatrix:
        seen.append(batch_size)
        return ConfusionMatrix(3, 255)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    run = replace(find_study("ade20k").run("glam_10_tiny_upernet", 1, "paper"), accumulate=turns)
    task_of(run).evaluate(torch.nn.Identity(), CueScenes(SceneConfig(size=32, num_shapes=1), 1, 0), run)
    assert seen == [batch]


def planned(tmp_path: Path) -> tuple[Path, Path]:
    build, results = tmp_path / "build", tmp_path / "results"
    plan.write_plan(build, "paper", [find_study("ade20k")], None, None, tmp_path)
    return build, results


def test_runs_with_a_record_are_not_counted_again(tmp_path: Path) -> None:
    build, results = planned(tmp_path)
    assert len(step.open_runs(build, results)) == 22
    record = results / "runs/ade20k/swin_tiny_upernet/seed-0/record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    left = [run.variant for run in step.open_runs(build, results)]
    assert len(left) == 21
    assert "swin_tiny_upernet" not in left
    os.utime(record, (0, 0))  # older than its plan: make would run it again
    assert len(step.open_runs(build, results)) == 22


def test_hours_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, results = planned(tmp_path)
    runs = [run for run in step.open_runs(build, results) if run.variant in ("swin_tiny_unet", "swin_base_unet")]
    timed: list[RunParameters] = []

    def measure(run: RunParameters, height: int, width: int, *steps: int) -> step.StepSpeed:
        timed.append(run)
        return step.StepSpeed(run.model, "", height, width, run.batch_size, "fp32", "", 0.9, 1.0)

    monkeypatch.setattr(step_speed, "measure", measure)
    on_gpu = step.seconds_an_image(runs, "cuda")
    assert [run.batch_size for run in timed] == [2, 2]
    assert list(on_gpu.values()) == [0.45, 0.45]
    listing = step.listing(runs, on_gpu).splitlines()
    assert listing[0].split() == ["ade20k", "swin_tiny_unet", "seed", "0", "160000", "steps", "of", "16", "320.0", "h"]
    assert listing[-1] == "2 runs, 640 hours, one process each"

    on_cpu = step.seconds_an_image(runs, "cpu")
    assert [run.variant for run in timed[2:]] == ["swin_tiny_unet"]  # the other by its multiply-adds
    small, large = (step.multiply_adds(run) for run in runs)
    assert list(on_cpu.values()) == pytest.approx([0.45, 0.45 * large / small])
    assert 1.5 < large / small < 4


def test_nothing_to_run_asks_nothing(tmp_path: Path) -> None:
    (tmp_path / "plan.mk").write_text("\n")
    done = run_module("glamlib.bench.step", "--build", str(tmp_path), "--results", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("answer", "tty", "yes", "status"),
    [("y", True, False, 0), ("", True, False, 1), ("y", False, False, 1), ("", False, True, 0)],
)
def test_it_asks_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, tty: bool, yes: bool, status: int
) -> None:
    build, results = planned(tmp_path)
    monkeypatch.setattr(confirm, "seconds_an_image", lambda runs, device: {step.kind_of(run): 1.0 for run in runs})
    monkeypatch.setattr(
        "sys.argv", ["confirm", "--build", str(build), "--results", str(results), *["--yes"][: int(yes)]]
    )
    monkeypatch.setattr("sys.stdin.isatty", lambda: tty, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if status:
        with pytest.raises(SystemExit, match=r"nothing was run|YES=1"):
            step.main()
    else:
        step.main()


def test_step_speed_times_steps_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunParameters.from_dict(
        find_study("ade20k").run("swin_tiny_unet", 0, "paper").to_dict()
        | {"model": "swin_nano_unet", "batch_size": 2, "device": "cpu"}
    )
    state = torch.get_rng_state()
    made: list[int] = []
    train = step.train

    def counted(*arguments, on_step, **others):
        return train(*arguments, on_step=lambda step: made.append(step) or on_step(step), **others)

    monkeypatch.setattr(step_speed, "train", counted)
    seconds, peak = step.time_steps(run, 32, 32, warm_up=1, timed=2)
    assert made == [1, 2, 3]
    torch.set_rng_state(state)
    assert 0 < seconds < 60
    assert peak > 50  # MiB: Python with torch alone
    row = step.StepSpeed("m", "", 32, 32, 2, "fp32", "cpu", seconds=0.5, peak_mib=1.0).row()
    assert row["images_per_second"] == 4
    assert row["paper_hours"] == pytest.approx(160_000 * 16 / 4 / 3600)
    json.dumps(row)


@pytest.mark.slow
def test_step_speed_writes_a_table(tmp_path: Path) -> None:
    out = tmp_path / "speed.csv"
    done = run_module(
        *("glamlib.bench.step", "swin_nano_unet", "--sizes", "32 32", "--batches", "1", "--device", "cpu"),
        *("--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    header, row = out.read_text().splitlines()
    assert header.startswith(
        "model,overrides,height,width,batch_size,precision,device,seconds,peak_mib,threads,images_per_second"
    )
    assert row.startswith("swin_nano_unet,,32,32,1,fp32,")
    assert header.endswith("torch,commit,dirty")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swin_nan_unet",), "error: unknown model 'swin_nan_unet'; allowed: "),
        (("swin_nano_unet", "--sizes", "32"), "error: --sizes '32': must be \"H W\""),
    ],
)
def test_step_speed_refuses_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = run_module("glamlib.bench.step", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.strip().splitlines()) == 1

"""The paper's profile: its values, and a rehearsal at tiny size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed

from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.runs.run import build_model
from glamlib.studies import find_study
from glamlib.training.datasets import run_datasets
from glamlib.training.loop import train
from glamlib.training.tasks import task_of
from glamlib.zoo import model_config


@pytest.mark.parametrize(
    ("study", "crop_size", "long_short"),
    [("ade20k", [512, 512], [2048, 512]), ("cityscapes", [512, 1024], [2048, 1024])],
)
def test_runs_are_those_of_the_released_configurations(study: str, crop_size: list, long_short: list) -> None:
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

    class BatchSize(Exception):
        """Carries it out of `evaluate`."""

    def evaluate(model, dataset, batch_size, *arguments, **others):
        raise BatchSize(batch_size)

    monkeypatch.setattr("glamlib.training.tasks.evaluate", evaluate)
    run = replace(find_study("ade20k").run("glam_10_tiny_upernet", 1, "paper"), accumulate=turns)
    with pytest.raises(BatchSize, match=f"^{batch}$"):
        task_of(run).evaluate(torch.nn.Identity(), CueScenes(SceneConfig(size=32, num_shapes=1), 1, 0), run)

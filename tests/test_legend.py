"""Legend scenes: the same on every machine, balanced, true to their pixels, and with no answer within reach."""

import colorsys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from glamlib import InputError, create_model
from glamlib.data.scenes import BACKGROUND, CELL, MAX_KEYS, CueScenes, LegendConfig, draw_scene
from glamlib.runs.records import read_record
from glamlib.runs.run import run_one
from glamlib.studies import find_study

CLEAN = [
    LegendConfig(num_keys=4, noise=0),
    LegendConfig(num_keys=16, noise=0, num_shapes=6),
    LegendConfig(num_keys=8, noise=0, spread=True),
    LegendConfig(num_keys=5, noise=0, size=100, window=24, spread=True),
]


def wheel(key: int, num_keys: int) -> np.ndarray:
    """A key's colour, by the hue wheel of colorsys, from 40 to 230."""
    hue = key * MAX_KEYS // num_keys / MAX_KEYS
    return 40 + 190 * np.array(colorsys.hsv_to_rgb(hue, 1, 1))


@pytest.mark.parametrize("config", CLEAN, ids=str)
def test_every_shape_has_the_class_that_the_pixels_of_the_legend_tell(config: LegendConfig) -> None:
    """Read off the picture alone: cells are where black or white is, a shape's key is its colour."""
    colours = np.array([wheel(key, config.num_keys) for key in range(config.num_keys)])
    for index in range(20):
        scene = draw_scene(config, 5, index)
        picture = scene.image.astype(int).transpose(1, 2, 0)  # (H, W, 3)
        grey = (np.ptp(picture, axis=2) == 0) & (picture[..., 0] != BACKGROUND)
        value_of, cell_of = {}, {}
        for y in range(0, config.size, CELL):  # cells lie on a grid of their size
            for x in range(2, config.size, CELL):
                if grey[y : y + CELL, x : x + 2].all():
                    key = int(abs(colours - picture[y, x - 2]).sum(axis=1).argmin())
                    value_of[key], cell_of[key] = 1 + (picture[y, x, 0] > 128), np.array([y, x - 2])
        assert sorted(value_of) == list(range(config.num_keys))  # each key once
        homes = {tuple(cell // config.window) for cell in cell_of.values()}
        assert len(homes) == (config.num_keys if config.spread else 1)

        coloured = ~grey & (picture != BACKGROUND).any(axis=2)
        for y, x in cell_of.values():
            coloured[y : y + CELL, x : x + CELL] = False
        numbers, count = ndimage.label(coloured)
        assert count == config.num_shapes
        for number in range(1, count + 1):
            places = np.argwhere(numbers == number)
            key = int(abs(colours - picture[*places[0]]).sum(axis=1).argmin())
            assert (scene.label[*places.T] == value_of[key]).all()
            # two blocks of window attention reach the neighbours of the window
            apart = abs(places // config.window - cell_of[key] // config.window).max(axis=1)
            assert apart.min() >= 2
            distance = np.linalg.norm(places.mean(axis=0) - cell_of[key] - (CELL - 1) / 2)
            assert distance == pytest.approx(scene.distances[scene.shapes[*places[0]] - 1])
        assert np.array_equal(coloured, scene.label > 0)


@pytest.mark.parametrize("config", CLEAN, ids=str)
def test_only_the_values_tell_the_classes(config: LegendConfig) -> None:
    """Scenes come in pairs: one picture but for the values, all of them and all classes opposite."""
    for index in range(0, 20, 2):
        one, two = (draw_scene(config, 1, index + i) for i in range(2))
        differ = np.argwhere((one.image != two.image).any(axis=0))
        assert len(differ) == config.num_keys * CELL * CELL // 2
        assert {tuple(place // CELL * CELL) for place in differ} == set(one.cells)
        assert np.array_equal(one.label + two.label, 3 * (one.shapes > 0))  # 1 and 2: as many pixels of each
    noisy = [draw_scene(LegendConfig(), 1, i) for i in range(2)]
    assert (noisy[0].image != noisy[1].image).mean() > 0.9  # noise is each scene's own


def test_values_are_independent() -> None:
    scenes = [draw_scene(LegendConfig(), 0, 2 * index) for index in range(400)]
    values = np.array([scene.values for scene in scenes])
    correlation = np.corrcoef(values.T) - np.eye(8)
    assert abs(values.mean(axis=0) - 1.5).max() < 0.125  # five deviations
    assert abs(correlation).max() < 0.25
    keys = np.bincount([key for scene in scenes for key in scene.keys], minlength=8)
    assert keys.min() > 130  # of 200


def test_a_run_ends_at_its_criterion_and_the_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose criterion guessing meets ends at its first validation."""
    run = find_study("legend").run("k4_n4", 0, "quick")
    assert (run.data["num_keys"], run.overrides["num_global_tokens"]) == (4, 4)
    for stop_at, steps, reached in ((0.01, 5, 5), (1.1, 10, None)):
        record = read_record(run_one(replace(run, stop_at=stop_at), tmp_path / str(stop_at)))
        history = pd.read_csv(tmp_path / str(stop_at) / "runs/legend/k4_n4/seed-0/history.csv")
        assert history["step"].max() == steps
        assert "val_right_given_found" in history
        assert record["metrics"]["steps_to_criterion"] == reached
        kept = np.load(tmp_path / str(stop_at) / "runs/legend/k4_n4/seed-0/pictures.npz")
        assert ("erf" in kept) == (steps == 5)
        no_room = Mock(side_effect=InputError("no room"))  # then the run is written without it
        monkeypatch.setattr("glamlib.runs.run.effective_receptive_field", no_room)
    with pytest.raises(InputError, match=r"stop_at=0\.5: needs validate_every"):
        replace(run, stop_at=0.5, validate_every=0)


def test_swin_and_masked_tokens_cannot_know_a_legend() -> None:
    """Their logits on shapes are the same, to the bit, whatever the legend says; GLAM's differ."""
    scenes = CueScenes(LegendConfig(size=48, noise=0), 20, seed=3)
    images = torch.stack([image for image, _ in scenes]) / 255
    shapes = torch.from_numpy(np.stack([scenes.scene(i).shapes > 0 for i in range(0, 20, 2)]))
    for name, knows in (("k8_swin", False), ("k8_none", False), ("k8_n1", True)):
        run = find_study("legend").run(name, 0, "gpu")
        torch.manual_seed(0)
        model = create_model(run.model, num_classes=3, **run.overrides).eval()
        with torch.no_grad():
            change = (model(images[::2]) - model(images[1::2])).abs().amax(dim=1)  # (10, H, W): of a pair of scenes
        assert (change[shapes].max() > 1e-4) == knows
        assert change.max() > 1e-2

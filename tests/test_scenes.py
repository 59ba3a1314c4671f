"""Cue scenes and volumes: the same on every machine, and true to their geometry, which is measured from the pixels."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from glamlib import InputError
from glamlib.data import scenes
from glamlib.data.scenes import CueScenes, CueVolumeConfig, CueVolumes, LegendConfig, SceneConfig, draw_scene
from glamlib.evaluation.cues import CueAccuracy

CLEAN = SceneConfig(noise=0)
# Every option away from its default
CROWDED = SceneConfig(size=96, num_shapes=8, num_cues=6, cue_size=12, noise=64, min_distance=20, max_distance=60)
SPREAD = LegendConfig(spread=True, num_shapes=3, noise=5)
CLEAN_VOLUME = CueVolumeConfig(noise=0)
CROWDED_VOLUME = CueVolumeConfig(size=40, num_shapes=6, cue_size=8, noise=30, min_distance=12)
KINDS = [(CueScenes, SceneConfig()), (CueVolumes, CueVolumeConfig())]


@pytest.mark.parametrize(
    ("config", "seed", "index", "digest"),
    [
        (SceneConfig(), 0, 0, "616d3536727b9f316a8d2e1dc05ca2cbea43ff9f2b6cf9d4bd986e23515a9c43"),
        (SceneConfig(), 1, 2, "6cff6afcbf3bdef16d1181dbd9e36218bd411f81243016328139f6e058b1d1e1"),
        (CROWDED, 1_000_000_007, 41, "c5ac22160baf5a85e16ed23bca0aac665795165a0660590c40a1bc2778049994"),
        (LegendConfig(), 0, 0, "6bd764c976066736db289d8f3df1ec63add17161a2d3b08a00fd2abb0e56b1d9"),
        (SPREAD, 1_000_000_007, 41, "740a8ca8798f64f156ed4266bbba23e756890c8eeaa099a5c3416d870b0b79f0"),
        (CueVolumeConfig(), 0, 0, "ce55647056e06885c9b9240dca9fd15211e7c35ae05aa9112992ec930df63199"),
        (CROWDED_VOLUME, 1_000_000_007, 41, "3c50cf0b1a88ab8a80783487ca8ddebd9f05e6cd05cda74727e9a9c2bd498262"),
    ],
)
def test_scenes_are_the_same_as_when_this_was_written(config: SceneConfig, seed: int, index: int, digest: str) -> None:
    """If this fails, all results on scenes are of other data: on another platform, another numpy, or by a change."""
    scene = draw_scene(config, seed, index)
    content = b"".join(np.ascontiguousarray(a).tobytes() for a in (scene.image, scene.label, scene.shapes))
    assert hashlib.sha256(content).hexdigest() == digest


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_an_item_depends_on_seed_and_index_alone(kind: type, config: SceneConfig) -> None:
    few, many = kind(config, 9, seed=3), kind(config, 800, seed=3)
    np.random.seed(1)  # noqa: NPY002  (global states must not matter)
    torch.manual_seed(1)
    for index in (8, 0, 7):
        image, _ = few[index]
    image.zero_()  # a copy: later items are not changed
    assert all(torch.equal(a, b) for a, b in zip(few[7], many[7], strict=True))
    others = [few[6], few[8], kind(config, 9, seed=4)[7], kind(config, 9, seed=7)[3]]
    assert not any(torch.equal(few[7][0], other) for other, _ in others)


@pytest.mark.parametrize(
    "config",
    [
        CLEAN,
        replace(CROWDED, noise=0),
        replace(CLEAN, cue_size=1),
        CLEAN_VOLUME,
        replace(CLEAN_VOLUME, size=40, cue_size=8, num_shapes=2, max_distance=20),
    ],
)
def test_labels_shapes_and_distances_are_those_of_the_picture(config: SceneConfig) -> None:
    dims, radii = config.dims, [config.smallest_radius + i for i in range(3)]
    for index in range(20):
        scene = draw_scene(config, 11, index)
        assert scene.image.shape[1:] == scene.label.shape == scene.shapes.shape == (config.size,) * dims
        assert scene.image.dtype == scene.label.dtype == scene.shapes.dtype == np.uint8
        background, on_shape = ((scene.image == grey).all(axis=0) for grey in (scenes.BACKGROUND, scenes.SHAPE))
        tile = np.argwhere(~background & ~on_shape)
        assert len(tile) == config.cue_size**dims
        assert np.ptp(tile, axis=0).tolist() == [config.cue_size - 1] * dims  # a whole square or cube
        colours = np.unique(scene.image[:, *tile.T], axis=1)
        assert colours.T.tolist() == [list(config.colours[scene.cue - 1])]
        assert np.array_equal(scene.shapes > 0, on_shape)
        assert np.array_equal(scene.label, np.where(on_shape, scene.cue, 0))
        assert ndimage.label(on_shape)[1] == config.num_shapes  # no two shapes touch
        for number, distance in enumerate(scene.distances, start=1):
            pixels = np.argwhere(scene.shapes == number)
            middle = pixels.mean(axis=0)
            assert distance == pytest.approx(np.linalg.norm(middle - tile.mean(axis=0)))
            assert config.min_distance <= distance <= (config.max_distance or np.inf)
            offsets = pixels - middle
            if len(pixels) != (2 * abs(offsets).max() + 1) ** dims:  # no square: all pixels within the radius
                radius = int(abs(offsets).max())
                around = np.indices((2 * radius + 1,) * dims) - radius
                assert radius in radii
                assert len(pixels) == np.count_nonzero((around**2).sum(axis=0) <= radius**2)
                assert (offsets**2).sum(axis=1).max() <= radius**2
            else:
                assert abs(offsets).max() + 1 in radii


@pytest.mark.parametrize(("low", "high"), [(0, 20), (30, 0), (25, 35)])
def test_distances_fill_their_range(low: int, high: int) -> None:
    config = SceneConfig(num_shapes=2, min_distance=low, max_distance=high)
    distances = np.concatenate([draw_scene(config, 0, index).distances for index in range(60)])
    nearest = max(low, 9)  # half a tile of 9, half a shape of at least 7, and nothing in between
    assert nearest <= distances.min() <= nearest + 6  # 120 draws come near both ends
    assert (high or 60) - 6 <= distances.max() <= (high or np.inf)


@pytest.mark.parametrize("config", [SceneConfig(), CueVolumeConfig()])
def test_shape_pixels_do_not_tell_the_class(config: SceneConfig) -> None:
    """Grey values, areas and places of the shapes are alike in both classes, and the classes cover as many pixels."""
    drawn = [draw_scene(config, 0, index) for index in range(300)]
    first = np.array([scene.cue == 1 for scene in drawn])
    for one, two in zip(drawn[::2], drawn[1::2], strict=True):  # one layout, both classes: exactly balanced
        assert np.array_equal(one.shapes, two.shapes)
        assert {one.cue, two.cue} == {1, 2}
        assert not np.array_equal(one.image, two.image)
    greys = np.array([scene.image[:, scene.shapes > 0].mean() for scene in drawn])
    assert abs(greys.mean() - scenes.SHAPE) < 1
    areas = np.array([np.count_nonzero(scene.shapes) for scene in drawn])
    rows = np.array([np.nonzero(scene.shapes)[0].mean() for scene in drawn])
    for measured in (greys, areas, rows):
        one, two = measured[first], measured[~first]
        assert abs(one.mean() - two.mean()) < 5 * np.sqrt(one.var() / len(one) + two.var() / len(two))


@pytest.mark.parametrize("deviation", [4, 16, 30])
def test_noise_has_its_mean_and_deviation(deviation: int) -> None:
    clean, noisy = (draw_scene(SceneConfig(size=512, noise=noise), 0, 0) for noise in (0, deviation))
    assert np.array_equal(clean.label, noisy.label)  # the noise comes last: it moves nothing
    noise = noisy.image.astype(float)[:, clean.image[0] == scenes.BACKGROUND] - scenes.BACKGROUND  # never clipped there
    assert abs(noise.mean()) < 0.6  # rounded down, so half a grey value low
    assert noise.std() == pytest.approx(deviation, rel=0.02)
    correlation = np.corrcoef(noise)  # of the channels
    assert abs(correlation[np.triu_indices(3, 1)]).max() < 0.02
    assert abs(np.corrcoef(noise[0, :-1], noise[0, 1:])[0, 1]) < 0.02
    third_moment = (((noise - noise.mean()) / noise.std()) ** 3).mean()
    assert abs(third_moment) < 0.05


@pytest.mark.parametrize(
    "config",
    [
        SceneConfig(num_shapes=200),
        SceneConfig(min_distance=64),
        SceneConfig(num_shapes=20, min_distance=40, max_distance=41),
        CueVolumeConfig(num_shapes=60),
    ],
)
def test_a_layout_without_room_is_an_error(config: SceneConfig) -> None:
    message = rf"num_shapes={config.num_shapes}.*: no room for {config.num_shapes} shapes .* fewer shapes, a larger"
    with pytest.raises(InputError, match=message):
        draw_scene(config, 0, 0)


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_the_data_set_gives_what_training_expects(kind: type, config: SceneConfig) -> None:
    data = kind(replace(config, noise=0), count=3, seed=9)
    assert len(data) == len(list(data)) == 3  # ends, by an IndexError
    assert len(data.classes) == len(data.palette) == 1 + config.num_cues
    assert data.name(1) != data.name(2)
    image, label = data[2]
    scene = data.scene(2)
    if kind is CueVolumes:
        # on either side of 0, and the same for background and shapes whatever the cue is
        assert set(image.unique().tolist()) < {-1.5, -0.5, 0.5, 1.5}
        image = image * 64 + 128
        assert data.spacing(0) == (1.0, 1.0, 1.0)
    else:
        assert image.dtype == torch.uint8
        assert data.palette[1:] == scenes.CUE_COLOURS[:2]
    assert np.array_equal(image, scene.image)
    assert np.array_equal(label, scene.label)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            data[index]


def test_accuracy_by_distance_in_volumes() -> None:
    volumes = CueVolumes(CueVolumeConfig(min_distance=12), count=12, seed=0)
    accuracy, counts = CueAccuracy(volumes), [int((label > 0).sum()) for _, label in volumes]
    for index, (_, label) in enumerate(volumes):
        accuracy.update(index, label if index % 2 else torch.zeros_like(label), label)
    metrics = accuracy.metrics()
    assert metrics["cue_accuracy"] == pytest.approx(sum(counts[1::2]) / sum(counts))
    assert sum(row["pixels"] for row in metrics["by_distance"]) == sum(counts)

"""Cue scenes: the same on every machine, and true to their geometry, which is measured again from the pixels."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from glamlib import InputError
from glamlib.data.scenes import BACKGROUND, CUE_COLOURS, SHAPE, CueScenes, Scene, SceneConfig, draw_scene

CLEAN = SceneConfig(noise=0)
CROWDED = SceneConfig(
    size=96, num_shapes=8, num_cues=6, cue_size=12, noise=64, min_distance=20, max_distance=60
)  # every option away from its default


def same(a: Scene, b: Scene) -> bool:
    pairs = ((a.image, b.image), (a.label, b.label), (a.shapes, b.shapes), (a.distances, b.distances))
    return a.cue == b.cue and all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    ("config", "seed", "index", "digest"),
    [
        (SceneConfig(), 0, 0, "5dbf0783d46fa798f2310ec70b3593bf703fec544c657867e8ee5c5a1b0078b7"),
        (SceneConfig(), 1, 2, "d66eafd3e841dbe7f84ba1a0249f3f0e16b737b0fd8091f4e0af39ea38216446"),
        (CROWDED, 1_000_000_007, 41, "b00198c22509d1857b9344220e1b7ebb255cddc53f5ab4a3f2b7fe6ec711f4eb"),
    ],
)
def test_scenes_are_the_same_as_when_this_was_written(config: SceneConfig, seed: int, index: int, digest: str) -> None:
    """If this fails, all results on scenes are of other data: on another platform, another numpy, or by a change."""
    scene = draw_scene(config, seed, index)
    content = b"".join(np.ascontiguousarray(a).tobytes() for a in (scene.image, scene.label, scene.shapes))
    assert hashlib.sha256(content).hexdigest() == digest


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    alone = draw_scene(CLEAN, 3, 7)
    np.random.seed(1)  # noqa: NPY002  (global states must not matter)
    torch.manual_seed(1)
    scenes = CueScenes(CLEAN, count=9, seed=3)
    for index in (8, 0, 7):
        last = scenes.scene(index)
    assert same(alone, last)
    assert same(CueScenes(CLEAN, count=800, seed=3).scene(7), alone)  # how many there are does not matter
    different = [draw_scene(CLEAN, seed, index) for seed, index in ((3, 8), (4, 7), (7, 3))]
    assert not any(same(alone, other) for other in different)


def test_workers_change_nothing() -> None:
    scenes = CueScenes(SceneConfig(), count=12, seed=5)
    batches = [list(DataLoader(scenes, batch_size=5, num_workers=workers)) for workers in (0, 2)]
    assert len(batches[0]) == len(batches[1]) == 3
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def measure(config: SceneConfig, scene: Scene) -> tuple[np.ndarray, np.ndarray, int]:
    """From the pixels of a noiseless scene: which are of shapes, the distance of each shape to the tile, its class."""
    pixels = scene.image.transpose(1, 2, 0)
    grey = {value: (pixels == value).all(axis=2) for value in (BACKGROUND, SHAPE)}
    tile = ~grey[BACKGROUND] & ~grey[SHAPE]
    rows, columns = np.nonzero(tile)
    assert len(rows) == config.cue_size**2
    assert np.ptp(rows) == np.ptp(columns) == config.cue_size - 1  # a whole square
    colours = np.unique(pixels[tile], axis=0)
    assert len(colours) == 1
    centre = np.array([rows.mean(), columns.mean()])
    distances = []
    for number in range(1, config.num_shapes + 1):
        rows, columns = np.nonzero(scene.shapes == number)
        middle = np.array([rows.mean(), columns.mean()])
        distances.append(np.linalg.norm(middle - centre))
        offsets = np.stack([rows, columns], axis=1) - middle
        radius = int(abs(offsets).max())
        if len(rows) == (2 * radius + 1) ** 2:
            assert radius + 1 in (4, 5, 6)  # a square
        else:  # a disc: all pixels not farther than its radius from its middle
            assert radius in (4, 5, 6)
            around = np.mgrid[-radius : radius + 1, -radius : radius + 1]
            assert len(rows) == np.count_nonzero((around**2).sum(axis=0) <= radius**2)
            assert (offsets**2).sum(axis=1).max() <= radius**2
    return grey[SHAPE], np.array(distances), CUE_COLOURS.index(tuple(colours[0].tolist())) + 1


@pytest.mark.parametrize("config", [CLEAN, replace(CROWDED, noise=0)], ids=["default", "crowded"])
def test_labels_shapes_and_distances_are_those_of_the_picture(config: SceneConfig) -> None:
    for index in range(30):
        scene = draw_scene(config, 11, index)
        assert scene.image.shape == (3, config.size, config.size)
        assert scene.image.dtype == scene.label.dtype == scene.shapes.dtype == np.uint8
        on_shape, distances, cue = measure(config, scene)
        assert np.array_equal(scene.shapes > 0, on_shape)
        assert np.array_equal(scene.label, np.where(on_shape, cue, 0))
        assert scene.cue == cue
        np.testing.assert_allclose(scene.distances, distances, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0, 20), (30, 0), (25, 35)])
def test_distances_keep_to_their_range(low: int, high: int) -> None:
    config = SceneConfig(num_shapes=2, min_distance=low, max_distance=high)
    distances = np.concatenate([draw_scene(config, 0, index).distances for index in range(60)])
    nearest = max(low, 9)  # half a tile of 9, half a shape of at least 7, and nothing in between
    assert nearest <= distances.min() <= nearest + 6  # 120 draws come near both ends
    assert distances.max() <= (high or np.inf)
    assert distances.max() >= (high or 60) - 6


def test_shape_pixels_do_not_tell_the_class() -> None:
    """Grey values, areas and places of the shapes are alike in both classes, and the classes come equally often."""
    config = SceneConfig()
    scenes = [draw_scene(config, 0, index) for index in range(400)]
    by_class = [[scene for scene in scenes if scene.cue == cue] for cue in (1, 2)]
    assert 150 < len(by_class[0]) < 250  # 200 and five deviations of 10
    means, areas, rows = [], [], []
    for members in by_class:
        values = np.concatenate([scene.image[:, scene.shapes > 0].astype(float) for scene in members], axis=1)
        means.append(values.mean(axis=1))
        assert abs(values.mean() - SHAPE) < 1
        areas.append([np.count_nonzero(scene.shapes) for scene in members])
        rows.append([np.nonzero(scene.shapes)[0].mean() for scene in members])
    # About 60,000 pixels a class: five deviations of the difference of two means of noise 16 are 0.5
    assert abs(means[0] - means[1]).max() < 0.5
    for measured in (areas, rows):
        error = np.sqrt(sum(np.var(values) / len(values) for values in measured))
        assert abs(np.mean(measured[0]) - np.mean(measured[1])) < 5 * error


def test_every_option_does_what_it_says() -> None:
    plain = draw_scene(CLEAN, 0, 0)
    assert draw_scene(replace(CLEAN, size=80), 0, 0).image.shape == (3, 80, 80)
    assert draw_scene(replace(CLEAN, num_shapes=7), 0, 0).shapes.max() == 7
    assert plain.shapes.max() == 4
    cues = {n: {draw_scene(replace(CLEAN, num_cues=n), 0, index).cue for index in range(60)} for n in (2, 3, 6)}
    assert cues == {2: {1, 2}, 3: {1, 2, 3}, 6: {1, 2, 3, 4, 5, 6}}
    for side in (1, 5, 20):
        measure(replace(CLEAN, cue_size=side), draw_scene(replace(CLEAN, cue_size=side), 0, 1))
    near = replace(CLEAN, max_distance=25)
    far = replace(CLEAN, min_distance=25)
    assert draw_scene(near, 0, 2).distances.max() <= 25 <= draw_scene(far, 0, 2).distances.min()


@pytest.mark.parametrize("deviation", [4, 16, 30])
def test_noise_has_its_mean_and_deviation(deviation: int) -> None:
    clean, noisy = (draw_scene(SceneConfig(size=512, noise=noise), 0, 0) for noise in (0, deviation))
    assert np.array_equal(clean.label, noisy.label)  # the noise comes last: it moves nothing
    noise = noisy.image.astype(float)[:, clean.image[0] == BACKGROUND] - BACKGROUND  # never clipped there
    assert abs(noise.mean()) < 0.6  # rounded down, so half a grey value low
    assert noise.std() == pytest.approx(deviation, rel=0.02)
    correlation = np.corrcoef(noise)  # of the channels
    assert abs(correlation[np.triu_indices(3, 1)]).max() < 0.02
    assert abs(np.corrcoef(noise[0, :-1], noise[0, 1:])[0, 1]) < 0.02
    third_moment = (((noise - noise.mean()) / noise.std()) ** 3).mean()
    assert abs(third_moment) < 0.05


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        ({"size": 15}, ("size=15", "from 16 to 4096")),
        ({"size": 4097}, ("size=4097", "from 16 to 4096")),
        ({"size": 64.0}, ("size=64.0", "must be an integer")),
        ({"num_shapes": 0}, ("num_shapes=0", "from 1 to 200")),
        ({"num_shapes": 201}, ("num_shapes=201", "from 1 to 200")),
        ({"num_shapes": True}, ("num_shapes=True", "must be an integer")),
        ({"num_cues": 1}, ("num_cues=1", "from 2 to 6")),
        ({"num_cues": 7}, ("num_cues=7", "from 2 to 6")),
        ({"cue_size": 0}, ("cue_size=0", "from 1 to 32")),
        ({"cue_size": 33}, ("cue_size=33", "from 1 to 32")),
        ({"noise": -1}, ("noise=-1", "from 0 to 64")),
        ({"noise": 65}, ("noise=65", "from 0 to 64")),
        ({"noise": "16"}, ("noise='16'", "must be an integer")),
        ({"min_distance": -1}, ("min_distance=-1", "from 0 to 64")),
        ({"min_distance": 65}, ("min_distance=65", "from 0 to 64")),
        ({"max_distance": -1}, ("max_distance=-1", "from 0 to 128")),
        ({"max_distance": 129}, ("max_distance=129", "from 0 to 128")),
        ({"min_distance": 30, "max_distance": 30}, ("max_distance=30", "above min_distance=30", "or 0")),
    ],
    ids=str,
)
def test_bad_options_name_the_value_and_the_range(options: dict, needles: tuple[str, ...]) -> None:
    assert set(options) <= {field.name for field in fields(SceneConfig)}
    with pytest.raises(InputError) as caught:
        SceneConfig(**options)
    for needle in needles:
        assert needle in str(caught.value)


@pytest.mark.parametrize("size", ["64", None])
def test_a_size_that_is_no_number_is_an_input_error(size: object) -> None:
    with pytest.raises(InputError, match="size="):
        SceneConfig(size=size)


@pytest.mark.parametrize(
    "options",
    [{"num_shapes": 200}, {"min_distance": 64}, {"num_shapes": 20, "min_distance": 40, "max_distance": 41}],
    ids=str,
)
def test_a_layout_without_room_is_an_error(options: dict) -> None:
    with pytest.raises(
        InputError, match=r"no room for \d+ shapes .* fewer shapes, a larger size or a wider range"
    ) as e:
        draw_scene(SceneConfig(**options), 0, 0)
    for name, value in options.items():
        assert f"{name}={value}" in str(e.value)


def test_the_data_set_gives_what_training_expects() -> None:
    scenes = CueScenes(replace(CLEAN, num_cues=3), count=4, seed=9)
    assert len(scenes) == 4
    assert len(scenes.classes) == len(scenes.palette) == 4
    assert scenes.palette[1:] == CUE_COLOURS[:3]
    image, label = scenes[2]
    assert torch.equal(image, torch.from_numpy(draw_scene(scenes.config, 9, 2).image))
    assert torch.equal(label, torch.from_numpy(draw_scene(scenes.config, 9, 2).label))
    assert scenes.name(2) != scenes.name(3)
    assert len(list(scenes)) == 4  # ends, by an IndexError
    for index in (-1, 4):
        with pytest.raises(IndexError):
            scenes[index]

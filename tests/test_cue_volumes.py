"""Cue volumes: the same on every machine, and true to their geometry, which is measured again from the voxels."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from glamlib import InputError
from glamlib.data.scenes import BACKGROUND, CUE_GREYS, SHAPE, CueVolumeConfig, CueVolumes, draw_volume
from glamlib.evaluation.cues import CueAccuracy

CLEAN = CueVolumeConfig(noise=0)


@pytest.mark.parametrize(
    ("config", "seed", "index", "digest"),
    [
        (CueVolumeConfig(), 0, 0, "d0412f27ed11f70d896b4ee66a2ca3d30022221d20ad7cec0f57ce988f167eb2"),
        (
            CueVolumeConfig(size=40, num_shapes=6, cue_size=8, noise=30, min_distance=12),
            1_000_000_007,
            41,
            "6928bf4ff5544c61a033634223bc3d8b29333d0ac866ccb37c24cad5dd0a79ea",
        ),
    ],
)
def test_volumes_are_the_same_as_when_this_was_written(config, seed, index, digest):
    volume = draw_volume(config, seed, index)
    content = b"".join(np.ascontiguousarray(a).tobytes() for a in (volume.grey, volume.label, volume.shapes))
    assert hashlib.sha256(content).hexdigest() == digest


@pytest.mark.parametrize("config", [CLEAN, replace(CLEAN, size=40, cue_size=8, num_shapes=2, max_distance=20)])
def test_labels_shapes_and_distances_are_those_of_the_voxels(config):
    for index in range(20):
        volume = draw_volume(config, 11, index)
        tile = np.argwhere((volume.grey != BACKGROUND) & (volume.grey != SHAPE))
        assert len(tile) == config.cue_size**3
        assert np.ptp(tile, axis=0).tolist() == [config.cue_size - 1] * 3  # a whole cube
        greys = np.unique(volume.grey[tuple(tile.T)])
        assert greys.tolist() == [CUE_GREYS[volume.cue - 1]]
        assert np.array_equal(volume.shapes > 0, volume.grey == SHAPE)
        assert np.array_equal(volume.label, np.where(volume.shapes > 0, volume.cue, 0))
        assert ndimage.label(volume.shapes > 0)[1] == config.num_shapes  # no two shapes touch
        for number, distance in enumerate(volume.distances, start=1):
            voxels = np.argwhere(volume.shapes == number)
            middle = voxels.mean(axis=0)
            assert distance == pytest.approx(np.linalg.norm(middle - tile.mean(axis=0)))
            assert distance <= (config.max_distance or np.inf)
            radius = int(abs(voxels - middle).max())
            around = np.mgrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
            ball = np.count_nonzero((around**2).sum(axis=0) <= radius**2)
            assert (radius, len(voxels)) in {(r, ball) for r in (3, 4, 5)} | {(r, (2 * r + 1) ** 3) for r in (2, 3, 4)}


def test_shape_voxels_do_not_tell_the_class():
    """Grey values and areas of the shapes are alike in both classes, which come equally often."""
    volumes = [draw_volume(CueVolumeConfig(), 0, index) for index in range(300)]
    dark = [volume.cue == 1 for volume in volumes]
    assert 107 < sum(dark) < 193  # 150 and five deviations of 8.7
    means = np.array([volume.grey[volume.shapes > 0].mean() for volume in volumes])
    areas = np.array([np.count_nonzero(volume.shapes) for volume in volumes])
    dark = np.array(dark)
    for measured in (means, areas):
        error = np.sqrt(measured[dark].var() / dark.sum() + measured[~dark].var() / (~dark).sum())
        assert abs(measured[dark].mean() - measured[~dark].mean()) < 5 * error


def test_a_volume_depends_on_seed_and_index_alone():
    few, many = (CueVolumes(CueVolumeConfig(), count, seed=3) for count in (8, 800))
    for _ in few:
        pass
    assert all(torch.equal(a, b) for a, b in zip(few[7], many[7], strict=True))
    assert not torch.equal(few[6][0], few[7][0])
    assert not torch.equal(CueVolumes(CueVolumeConfig(), 8, seed=4)[7][0], few[7][0])


def test_the_data_set_gives_what_training_expects():
    volumes = CueVolumes(CueVolumeConfig(size=20, num_shapes=1, noise=0), count=2, seed=0)
    image, label = volumes[1]
    assert (image.shape, image.dtype) == ((1, 20, 20, 20), torch.float32)
    assert (label.shape, label.dtype) == ((20, 20, 20), torch.uint8)
    grey = torch.from_numpy(volumes.scene(1).grey)
    assert torch.equal((image[0] * 64 + 128).to(torch.uint8), grey)
    # on either side of 0, and the same for background and shapes whatever the cue is
    assert {round(v, 3) for v in image.unique().tolist()} < {-1.5, -0.5, 0.5, 1.5}
    assert len(volumes.classes) == len(volumes.palette) == 1 + volumes.config.num_cues
    assert volumes.name(0) != volumes.name(1)
    assert len(list(volumes)) == 2


def test_accuracy_by_distance_can_be_measured():
    volumes = CueVolumes(CueVolumeConfig(min_distance=12), count=12, seed=0)
    accuracy = CueAccuracy(volumes)
    for index in range(len(volumes)):
        label = volumes[index][1]
        accuracy.update(index, label if index % 2 else torch.zeros_like(label), label)
    metrics = accuracy.metrics()
    counts = [int((volumes[index][1] > 0).sum()) for index in range(12)]
    assert metrics["cue_accuracy"] == pytest.approx(sum(counts[1::2]) / sum(counts))
    assert metrics["cue_chance"] == 0.5
    assert sum(row["pixels"] for row in metrics["by_distance"]) == sum(counts)
    assert metrics["by_distance"][0]["from_px"] == 8
    assert accuracy.counts.shape[1] * 8 >= np.sqrt(3) * 32  # room for every distance


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"size": 15}, "size=15: must be an integer from 16 to 256"),
        ({"size": "32"}, "size='32'"),
        ({"num_shapes": 0}, "num_shapes=0"),
        ({"cue_size": 17}, "cue_size=17: must be an integer from 1 to 16"),
        ({"noise": 65}, "noise=65"),
        ({"min_distance": 33}, "min_distance=33"),
        ({"min_distance": 20, "max_distance": 20}, "max_distance=20: must be above min_distance=20"),
    ],
)
def test_bad_options_name_the_value_and_the_range(options, needle):
    with pytest.raises(InputError) as caught:
        CueVolumeConfig(**options)
    assert needle in str(caught.value)


def test_a_layout_without_room_is_an_error():
    with pytest.raises(InputError, match="no room for 60 shapes"):
        draw_volume(CueVolumeConfig(num_shapes=60), 0, 0)

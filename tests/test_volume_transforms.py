"""Patches of volumes, against geometry measured from images that hold their own coordinates."""

import itertools
import time

import numpy as np
import pytest
import torch

from glamlib.data.scenes import CueVolumeConfig, CueVolumes
from glamlib.data.volume_transforms import VolumeTransform
from glamlib.errors import InputError

SHAPE = (24, 28, 32)


def coordinates(shape=SHAPE):
    """An image of three channels, each voxel's depth, height and width, and a label that tells the voxel apart."""
    image = np.indices(shape).astype(np.float32)
    label = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)
    return torch.from_numpy(image), torch.from_numpy(label)


class Sided:
    """Of a data set, what `for_dataset` asks."""

    def __init__(self, sided):
        self.sided = sided


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_patch_is_a_piece_of_the_volume_and_may_lie_anywhere():
    image, label = coordinates()
    transform = VolumeTransform((8, 10, 32), foreground=0)
    starts = set()
    for seed in range(300):
        patch, classes = transform(image, label, rng(seed))
        z, y, x = (int(v) for v in patch[:, 0, 0, 0])
        assert torch.equal(patch, image[:, z : z + 8, y : y + 10, x : x + 32])
        assert torch.equal(classes, label[z : z + 8, y : y + 10, x : x + 32])
        starts.add((z, y, x))
    for axis, last in enumerate((16, 18, 0)):
        assert {start[axis] for start in starts} == set(range(last + 1))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_mirrors_turn_image_and_label_alike(axes):
    image, label = coordinates()
    transform = VolumeTransform(SHAPE, flip_axes=axes, flip=1.0)
    patch, classes = transform(image, label, rng())
    for z, y, x in itertools.product((0, 5, 23), (0, 9, 27), (0, 11, 31)):
        at = tuple(n - 1 - i if axis in axes else i for axis, (i, n) in enumerate(zip((z, y, x), SHAPE, strict=True)))
        assert patch[:, z, y, x].tolist() == list(at)
        assert classes[z, y, x] == label[at]


def test_sides_are_never_exchanged():
    """Of a sided volume, the width of every patch runs from left to right; of another, in half of them."""
    image, label = coordinates()
    for sided in (True, False):
        transform = VolumeTransform.for_dataset(Sided(sided), patch_size=(8, 8, 8), flip=0.5)
        increments = set()
        for seed in range(60):
            patch, _ = transform(image, label, rng(seed))
            increments.add(tuple(int(patch[axis].diff(dim=axis).unique().item()) for axis in range(3)))
        assert len(increments) == (4 if sided else 8)
        assert {step[2] for step in increments} == ({1} if sided else {1, -1})
    assert VolumeTransform((8, 8, 8)).flip_axes == ()  # without a data set that says it may
    with pytest.raises(InputError, match=r"flip_axes=.* without 2, left to right"):
        VolumeTransform.for_dataset(Sided(True), patch_size=(8, 8, 8), flip_axes=(0, 2))
    assert VolumeTransform.for_dataset(Sided(False), patch_size=[8, 8, 8], flip_axes=[2]).flip_axes == (2,)


@pytest.mark.parametrize(("rotate", "scale"), [(20, (1.0, 1.0)), (0, (0.8, 1.25)), (20, (0.8, 1.25))])
def test_rotation_and_scale_are_turns_and_growth_along_each_axis(rotate, scale):
    """From the coordinates that the patch shows: a linear map, a rotation of the angles allowed, factors in range."""
    image, label = coordinates((40, 40, 40))
    angles, factors = [], []
    for seed in range(40):
        patch, classes = VolumeTransform((9, 9, 9), foreground=0, rotate=rotate, scale=scale)(image, label, rng(seed))
        if (classes == 255).any():
            continue
        places = np.indices((9, 9, 9)).reshape(3, -1)
        shown = patch.numpy().reshape(3, -1)
        matrix, rest, _, _ = np.linalg.lstsq(np.vstack([places, np.ones(729)]).T, shown.T, rcond=None)
        assert rest.max() < 1e-3  # linear
        _, stretch, _ = np.linalg.svd(matrix[:3].T)
        factors += (1 / stretch).tolist()
        if scale == (1.0, 1.0):
            angles.append(np.degrees(np.arccos((np.trace(matrix[:3]) - 1) / 2)))
        assert np.linalg.det(matrix[:3]) > 0  # no mirror
        nearest = np.round(shown).astype(int)
        sure = (abs(shown - nearest) < 0.45).all(axis=0)  # not between two voxels
        assert np.array_equal(classes.numpy().reshape(-1)[sure], label.numpy()[tuple(nearest)][sure])
    assert scale[0] - 1e-3 <= min(factors) <= max(factors) <= scale[1] + 1e-3
    if scale == (1.0, 1.0):
        assert 15 < max(angles) <= 20 * np.sqrt(3) + 0.1
    else:
        assert min(factors) < 0.93 < 1.1 < max(factors)


def test_no_turn_is_the_piece_itself():
    image, label = coordinates()
    plain = VolumeTransform((8, 10, 12), foreground=0)(image, label, rng(3))
    turned = VolumeTransform((8, 10, 12), foreground=0, scale=(1.0, 1.0000001))(image, label, rng(3))
    assert torch.allclose(plain[0], turned[0], atol=1e-3)
    assert torch.equal(plain[1], turned[1])


@pytest.mark.parametrize("rotate", [0, 10])
def test_a_volume_smaller_than_the_patch_is_centred_in_it(rotate):
    image = torch.arange(1.0, 61).view(1, 3, 4, 5)
    label = torch.ones(3, 4, 5, dtype=torch.uint8)
    patch, classes = VolumeTransform((8, 4, 9), rotate=rotate)(image, label, rng())
    assert patch.shape == (1, 8, 4, 9)
    if not rotate:
        assert torch.equal(patch[:, 2:5, :, 2:7], image) or torch.equal(patch[:, 3:6, :, 2:7], image)
        assert (classes == 1).sum() == 60
    outside = classes == 255
    assert outside.sum() > 8 * 4 * 9 / 2
    smallest = patch[0][outside] == 1  # of the volume; a rotated border is interpolated
    assert smallest.float().mean() > 0.8 if rotate else smallest.all()
    assert set(classes.unique().tolist()) == {1, 255}


def test_foreground_patches_hold_a_structure_each_as_often():
    """Classes of 1 and 1000 voxels are met equally often, and the rest of the patches lie anywhere."""
    label = torch.zeros(40, 40, 40, dtype=torch.uint8)
    label[2, 38, 20] = 1
    label[25:35, 25:35, 2:12] = 2
    label[0] = 255
    image = torch.zeros(1, 40, 40, 40)
    transform = VolumeTransform((6, 6, 6), foreground=1.0)
    held = [set(transform(image, label, rng(seed))[1].unique().tolist()) - {0, 255} for seed in range(300)]
    assert all(len(classes) == 1 for classes in held)
    assert 115 < sum(classes == {1} for classes in held) < 185  # 150 and four deviations of 8.7
    share = VolumeTransform((6, 6, 6), foreground=0.25)
    met = sum(1 in share(image, label, rng(seed))[1].unique() for seed in range(400))
    assert 28 < met < 72  # 50 and more than three deviations of 6.6
    nothing = torch.zeros(40, 40, 40, dtype=torch.uint8)
    assert transform(image, nothing, rng())[1].shape == (6, 6, 6)


def test_intensity_and_noise():
    image, label = torch.ones(1, 32, 32, 32), torch.zeros(32, 32, 32, dtype=torch.uint8)
    means, deviations = [], []
    for seed in range(60):
        patch, _ = VolumeTransform((32, 32, 32), intensity=0.1)(image, label, rng(seed))
        assert patch.unique().numel() == 1
        means.append(patch.mean().item())
        patch, _ = VolumeTransform((32, 32, 32), noise=0.5)(image, label, rng(seed))
        assert abs(patch.mean() - 1) < 0.02
        deviations.append(patch.std().item())
        assert patch.dtype == torch.float32
    assert 0.8 <= min(means) < 0.9 < 1.1 < max(means) <= 1.2
    assert min(deviations) < 0.1 < 0.4 < max(deviations) < 0.51


def test_the_generator_decides_and_nothing_is_written_to():
    image, label = (tensor.clone() for tensor in coordinates())
    before = image.clone(), label.clone()
    transform = VolumeTransform.for_dataset(
        Sided(False), patch_size=(12, 12, 12), rotate=15, scale=(0.9, 1.1), intensity=0.1, noise=0.1
    )
    np.random.seed(1)  # noqa: NPY002  (global states must not matter)
    one = transform(image, label, rng(5))
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    two, other = transform(image, label, rng(5)), transform(image, label, rng(6))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    plain = VolumeTransform(SHAPE)(image, label, rng())
    plain[0].zero_()
    plain[1].zero_()
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])


def test_cue_volumes_can_be_cut():
    volumes = CueVolumes(CueVolumeConfig(), count=2, seed=0)
    transform = VolumeTransform.for_dataset(volumes, patch_size=(32, 32, 32))
    assert transform.flip_axes == (0, 1, 2)
    image, label = transform(*volumes[0], rng())
    assert image.shape == (1, 32, 32, 32)
    assert label.sum() == volumes[0][1].sum()


def test_speed():
    """Far above what it takes (2 and 25 ms on the machine this was written on), so that only a blunder fails."""
    image, label = torch.rand(1, 80, 80, 80), torch.ones(80, 80, 80, dtype=torch.uint8)
    for transform, limit in ((VolumeTransform((64,) * 3), 0.05), (VolumeTransform((64,) * 3, rotate=10), 0.4)):
        started = time.perf_counter()
        for seed in range(3):
            transform(image, label, rng(seed))
        assert (time.perf_counter() - started) / 3 < limit


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"patch_size": (8, 8)}, "patch_size=(8, 8): must be a list"),
        ({"patch_size": (8, 8, 0)}, "patch_size"),
        ({"patch_size": 8}, "patch_size"),
        ({"foreground": 1.5}, "foreground=1.5: must be a number from 0 to 1"),
        ({"flip": "yes"}, "flip='yes'"),
        ({"flip_axes": (3,)}, "flip_axes=(3,)"),
        ({"flip_axes": 0}, "flip_axes=0"),
        ({"rotate": 181}, "rotate=181"),
        ({"scale": (1.2, 0.8)}, "low <= high"),
        ({"scale": (0, 1)}, "scale=(0, 1)"),
        ({"scale": 1.1}, "scale=1.1"),
        ({"intensity": -1}, "intensity=-1"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"turn": 3}, "unknown option of augment 'turn'; allowed: patch_size, foreground"),
    ],
    ids=str,
)
def test_bad_options_name_the_value_and_what_is_allowed(options, needle):
    with pytest.raises(InputError) as caught:
        VolumeTransform.for_dataset(Sided(False), **{"patch_size": (8, 8, 8), **options})
    assert needle in str(caught.value)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="missing option of augment: patch_size"):
        VolumeTransform.for_dataset(Sided(False))
    with pytest.raises(InputError, match=r"image \(1, 4, 4, 4\) and label \(4, 4, 5\) differ in shape"):
        VolumeTransform((2, 2, 2))(torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 5), rng())

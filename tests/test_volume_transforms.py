"""Patches of volumes, against geometry measured from images that hold their own coordinates."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glamlib.data.volume_transforms import VolumeTransform
from glamlib.errors import InputError

SHAPE = (24, 28, 32)
EVERYTHING = {"patch_size": (12, 12, 12), "rotate": 15, "scale": (0.9, 1.1), "intensity": 0.1, "noise": 0.1}


def coordinates(shape=SHAPE):
    """An image of three channels, each voxel's depth, height and width, and a label that tells the voxel apart."""
    image = np.indices(shape).astype(np.float32)
    label = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)
    return torch.from_numpy(image), torch.from_numpy(label)


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
        assert type(patch) is type(classes) is torch.Tensor
        starts.add((z, y, x))
    for axis, last in enumerate((16, 18, 0)):
        assert {start[axis] for start in starts} == set(range(last + 1))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_mirrors_turn_image_and_label_alike(axes):
    image, label = coordinates()
    patch, classes = VolumeTransform(SHAPE, flip_axes=axes, flip=1.0)(image, label, rng())
    assert torch.equal(patch, image.flip([axis + 1 for axis in axes]))
    assert torch.equal(classes, label.flip(axes))


def test_sides_are_never_exchanged():
    """Of a sided volume, the width of every patch runs from left to right; of another, in half of them."""
    image, label = coordinates()
    for sided in (True, False):
        transform = VolumeTransform.for_dataset(SimpleNamespace(sided=sided), patch_size=(8, 8, 8), flip=0.5)
        increments = set()
        for seed in range(60):
            patch, _ = transform(image, label, rng(seed))
            increments.add(tuple(int(patch[axis].diff(dim=axis).unique().item()) for axis in range(3)))
        assert len(increments) == (4 if sided else 8)
        assert {step[2] for step in increments} == ({1} if sided else {1, -1})
    assert VolumeTransform((8, 8, 8)).flip_axes == ()  # without a data set that says it may
    with pytest.raises(InputError, match=r"flip_axes=.* without 2, left to right"):
        VolumeTransform.for_dataset(SimpleNamespace(sided=True), patch_size=(8, 8, 8), flip_axes=(0, 2))
    assert VolumeTransform.for_dataset(SimpleNamespace(sided=False), patch_size=[8, 8, 8], flip_axes=[2]).flip_axes == (
        2,
    )


@pytest.mark.parametrize("side", [9, 10])
def test_rotation_and_scale_are_rigid_turns_and_growth(side):
    """From the coordinates that the patch shows: the map is s * R with R a rotation of the angles allowed."""
    image, label = coordinates((40, 40, 40))
    inside = torch.ones(1, 40, 40, 40)
    inside[0, 0, 0, 0] = 0  # the smallest value, which fills what lies outside
    angles, factors, centres = [], [], []
    for seed in range(40):
        transform = VolumeTransform((side, side, side), foreground=0, rotate=20, scale=(0.8, 1.25))
        patch, classes = transform(torch.cat([image, inside]), label, rng(seed))
        if (patch[3] < 0.999).any():  # a voxel takes from beyond the volume
            continue
        patch = patch[:3]
        assert not (classes == 255).any()
        places = np.indices((side,) * 3).reshape(3, -1)
        shown = patch.numpy().reshape(3, -1)
        matrix, rest, _, _ = np.linalg.lstsq(np.vstack([places, np.ones(side**3)]).T, shown.T, rcond=None)
        assert rest.max() < 1e-4  # linear
        linear = matrix[:3].T
        factor = 1 / np.cbrt(np.linalg.det(linear))  # a mirror would have a negative one
        rotation = linear * factor
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
        angles.append(np.degrees(np.arccos((np.trace(rotation) - 1) / 2)))
        factors.append(factor)
        centres.append(shown.mean(axis=1))
        nearest = np.round(shown).astype(int)
        sure = (abs(shown - nearest) < 0.45).all(axis=0)  # not between two voxels
        assert np.array_equal(classes.numpy().reshape(-1)[sure], label.numpy()[tuple(nearest)][sure])
    assert len(angles) > 15
    assert 15 < max(angles) <= 20 * np.sqrt(3) + 0.1
    assert 0.8 <= min(factors) < 0.9 < 1.1 < max(factors) <= 1.25
    doubled = 2 * np.array(centres)  # a plain patch's centre: a voxel's, or halfway between two
    np.testing.assert_allclose(doubled, doubled.round(), atol=0.01)
    assert (doubled.round() % 2 == 1 - side % 2).all()


def test_a_rotated_patch_may_lie_at_the_border_and_knows_its_corners():
    image, label = coordinates()
    known = []
    nearest = np.full(3, 99.0)
    for seed in range(200):
        patch, classes = VolumeTransform((8, 12, 16), foreground=0, rotate=15)(image, label, rng(seed))
        middle = patch[:, 3:5, 5:7, 7:9].mean(dim=(1, 2, 3)).numpy()
        nearest = np.minimum(nearest, middle)
        if (np.abs(middle - 0.5 * np.array(SHAPE)) < (2, 2, 2)).all():  # in the middle of the volume
            known.append((classes != 255).all().item())
    assert (nearest < (4, 6, 8)).all()  # as near the border as a plain patch's middle
    assert known
    assert all(known)


@pytest.mark.parametrize("rotate", [0, 10])
def test_a_volume_smaller_than_the_patch_is_centred_in_it(rotate):
    """What lies outside has each channel's smallest value, and label 255."""
    image = torch.stack([torch.arange(1.0, 61), torch.arange(-60.0, 0)]).view(2, 3, 4, 5)
    label = torch.ones(3, 4, 5, dtype=torch.uint8)
    label[0, 0] = 254
    patch, classes = VolumeTransform((8, 4, 9), rotate=rotate)(image, label, rng())
    assert patch.shape == (2, 8, 4, 9)
    if not rotate:
        assert torch.equal(patch[:, 2:5, :, 2:7], image)
        assert torch.equal(classes[2:5, :, 2:7], label)
        assert (classes != 255).sum() == 60
    outside = classes == 255
    assert outside.sum() > 8 * 4 * 9 / 2
    assert set(classes.unique().tolist()) == {1, 254, 255}
    far = outside & (torch.nn.functional.max_pool3d((~outside)[None].float(), 3, 1, 1)[0] == 0)
    assert (patch[0][far] == 1).all()
    assert (patch[1][far] == -60).all()


@pytest.mark.parametrize("rotate", [0, 5])
def test_foreground_patches_hold_a_structure_each_as_often(rotate):
    """Structures of 1 and 1000 voxels are met equally often, and the rest of the patches lie anywhere."""
    label = torch.zeros(40, 40, 40, dtype=torch.uint8)
    label[2, 36, 20] = 1
    label[25:35, 25:35, 2:12] = 2
    label[0] = 255
    image = torch.zeros(1, 40, 40, 40)
    transform = VolumeTransform((7, 7, 7), foreground=1.0, rotate=rotate)
    held = [set(transform(image, label, rng(seed))[1].unique().tolist()) - {0, 255} for seed in range(200)]
    assert all(len(classes) == 1 for classes in held)
    assert 72 < sum(classes == {1} for classes in held) < 128  # 100 and four deviations of 7
    share = VolumeTransform((7, 7, 7), foreground=0.25, rotate=rotate)
    met = sum(1 in share(image, label, rng(seed))[1].unique() for seed in range(300))
    assert 16 < met < 60  # 38, and more than three deviations of 5.7
    nothing = torch.zeros(40, 40, 40, dtype=torch.uint8)
    assert transform(image, nothing, rng())[1].shape == (7, 7, 7)


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
    zeros, _ = VolumeTransform((32, 32, 32), intensity=0.1)(0 * image, label, rng(0))
    dark, _ = VolumeTransform((32, 32, 32), intensity=0.1)(-image, label, rng(0))
    shift = zeros.mean().item()  # multiplied about 0, then shifted
    assert dark.mean().item() - shift == pytest.approx(shift - means[0], abs=1e-5)


def test_the_generator_decides_and_nothing_is_written_to():
    image, label = coordinates()
    before = image.clone(), label.clone()
    transform = VolumeTransform.for_dataset(SimpleNamespace(sided=False), **EVERYTHING)
    np.random.seed(1)  # noqa: NPY002  (global states must not matter)
    one = transform(image, label, rng(5))
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    two, other = transform(image, label, rng(5)), transform(image, label, rng(6))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    plain = VolumeTransform(SHAPE)(image, label, rng())
    for tensor in plain:
        tensor.zero_()
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])

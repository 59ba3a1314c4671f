"""Losses and scores of volumes, against MONAI, torchmetrics, brute force and sums by hand."""

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from test_inference import Volumes
from torch import Tensor

from glamlib.evaluation.evaluate import Gallery
from glamlib.evaluation.metrics import VolumeScores
from glamlib.training.losses import cross_entropy, deeply_supervised, soft_dice_loss


def logits_and_labels(size: tuple[int, ...] = (4, 5, 6), classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, classes, *size, generator=rng), torch.randint(0, classes, (2, *size), generator=rng)


def test_soft_dice_is_monais_where_every_voxel_is_known() -> None:
    logits, labels = logits_and_labels()
    labels[labels == 3] = 1  # a class that is nowhere: its Dice is that of its false guesses
    theirs = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    assert soft_dice_loss(logits, labels, 255).item() == pytest.approx(theirs(logits, labels[:, None]).item(), abs=1e-6)


def test_soft_dice_leaves_ignored_voxels_out() -> None:
    logits, labels = logits_and_labels(size=(3, 2, 4), classes=3)
    labels[0, 0], labels[1, :, 1, 2] = 255, 255
    sums = {k: [0.0, 0.0, 0.0] for k in (1, 2)}  # overlap, guess, truth
    for place in product(*(range(n) for n in labels.shape)):
        if labels[place] == 255:
            continue
        shares = logits[place[0], :, *place[1:]].softmax(0).tolist()
        for k in sums:
            truth = float(labels[place] == k)
            sums[k][0] += truth * shares[k]
            sums[k][1] += shares[k]
            sums[k][2] += truth
    expected = 1 - np.mean([(2 * o + 1e-5) / (g + t + 1e-5) for o, g, t in sums.values()])
    assert soft_dice_loss(logits, labels, 255).item() == pytest.approx(expected, abs=1e-6)
    other = logits.clone()
    other[0, :, 0] = 50.0 * torch.randn(3, 2, 4)
    assert soft_dice_loss(other, labels, 255) == soft_dice_loss(logits, labels, 255)


def test_deep_supervision_by_hand() -> None:
    """Weights 4/7, 2/7, 1/7; the centre of a coarse voxel of 2 is nearest to the second, of 4 to the third."""
    logits, labels = logits_and_labels(size=(8, 8, 8))
    labels[0, 0] = 255
    half, quarter = torch.randn(2, 4, 4, 4, 4), torch.randn(2, 4, 2, 2, 2)
    parts = (
        (4 / 7, logits, labels),
        (2 / 7, half, labels[:, 1::2, 1::2, 1::2]),
        (1 / 7, quarter, labels[:, 2::4, 2::4, 2::4]),
    )
    expected = sum(w * (cross_entropy(x, y, 255) + soft_dice_loss(x, y, 255)).item() for w, x, y in parts)
    assert deeply_supervised([logits, half, quarter], labels, 255).item() == pytest.approx(expected, rel=1e-6)
    stored = labels.to(torch.uint8)  # labels come as uint8
    assert deeply_supervised([logits], stored, 255).item() == deeply_supervised([logits], labels, 255).item()


def blobs(seed: int, size: tuple[int, int, int] = (9, 8, 10), classes: int = 3) -> Tensor:
    """Return smooth random class numbers ``(D, H, W)``: a few connected parts a class."""
    noise = torch.randn(1, classes, *size, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool3d(noise, 5, 1, 2)[0].argmax(0)


def hd95_by_hand(guess: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Every surface voxel of one against all of the other; a surface voxel has a neighbour outside."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inner = padded[1:-1, 1:-1, 1:-1].copy()
        for axis, step in product(range(3), (-1, 1)):
            inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(mask & ~inner) * spacing

    a, b = surface(guess), surface(truth)
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))


def cases(structures: tuple[str, ...], *spacings: tuple[float, float, float]) -> SimpleNamespace:
    """A data set of volumes, as far as scores ask."""
    about = {"classes": ("background", *structures), "ignore_index": 255, "name": "case {}".format}
    return SimpleNamespace(**about, spacing=spacings.__getitem__)


def test_scores_by_brute_force_in_millimetres() -> None:
    spacings = [(1.0, 1.0, 1.0), (3.0, 0.5, 1.25)]
    scores = VolumeScores(cases(("a", "b"), *spacings))
    expected = {"dice": [], "hd95": []}
    for case, spacing in enumerate(spacings):
        guess, truth = blobs(case), blobs(case + 10)
        scores.update(case, guess, truth)
        masks = [((guess == k).numpy(), (truth == k).numpy()) for k in (1, 2)]
        expected["dice"].append([2 * (g & t).sum() / (g.sum() + t.sum()) for g, t in masks])
        expected["hd95"].append([hd95_by_hand(g, t, spacing) for g, t in masks])
    found = scores.metrics()
    dice, hd95 = np.array(expected["dice"]), np.array(expected["hd95"])
    assert found["dice"] == pytest.approx(dice.mean())
    assert found["dice_by_class"] == pytest.approx(dice.mean(axis=0))
    assert found["hd95_mm"] == pytest.approx(hd95.mean(), rel=1e-5)
    assert found["hd95_mm_by_class"] == pytest.approx(hd95.mean(axis=0), rel=1e-5)
    assert [case["name"] for case in found["cases"]] == ["case 0", "case 1"]
    assert found["cases"][1]["hd95_mm"] == pytest.approx(hd95[1], rel=1e-5)
    # with nothing undefined the two rules agree
    assert found["undefined"] == {"dice": 0, "hd95": 0, "pairs": 4}
    assert found["dice_synapse_rule"] == pytest.approx(found["dice"])
    assert found["hd95_synapse_rule_mm"] == pytest.approx(found["hd95_mm"])


def test_empty_structures_under_both_rules() -> None:
    """In one case structure a is only predicted, b only true, c in neither, d right."""
    truth, guess = torch.zeros(6, 6, 6, dtype=torch.uint8), torch.zeros(6, 6, 6, dtype=torch.int64)
    guess[0, 0, 0], truth[5, 5, 5] = 1, 2
    guess[2:4, 2:4, 2:4] = truth[2:4, 2:4, 2:4] = 4
    scores = VolumeScores(cases(("a", "b", "c", "d"), (2.0, 2.0, 2.0), (2.0, 2.0, 2.0)))
    scores.update(0, guess, truth)
    found = scores.metrics()
    assert found["dice_by_class"] == pytest.approx([0, 0, np.nan, 1], nan_ok=True)
    assert found["dice"] == pytest.approx(1 / 3)
    assert found["hd95_mm_by_class"] == pytest.approx([np.nan, np.nan, np.nan, 0], nan_ok=True)
    assert found["hd95_mm"] == 0
    assert found["undefined"] == {"dice": 1, "hd95": 3, "pairs": 4}
    json.dumps(found)  # plain numbers
    assert found["dice_synapse_rule"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert found["hd95_synapse_rule_mm"] == 0
    # a second case that has all four: the undefined one is left out of the structure's mean, not counted as 0
    full = torch.zeros(6, 6, 6, dtype=torch.uint8)
    for k in range(1, 5):
        full[k] = k
    half = full.long()
    half[:, :3] = 0
    scores.update(1, half, full)
    two_thirds = 2 * 18 / (18 + 36)
    found = scores.metrics()
    expected = [two_thirds / 2, two_thirds / 2, two_thirds, (1 + two_thirds) / 2]
    assert found["dice_by_class"] == pytest.approx(expected)
    assert found["dice"] == pytest.approx(np.mean(expected))
    assert found["undefined"] == {"dice": 1, "hd95": 3, "pairs": 8}
    assert found["dice_synapse_rule"] == pytest.approx((2 + 4 * two_thirds) / 8)


def test_gallery_keeps_the_slice_with_most_of_the_structures() -> None:
    volumes = Volumes((5, 6, 7), (5, 6, 7), (4, 7, 6), (5, 6, 7), (5, 6, 9))
    for index, (_, label) in enumerate(volumes.items):
        label[:] = 0
        label[index % 4, 1:4, 2] = 1
        label[3 - index % 4, 1, 1] = 2
        label[3 - index % 4, 4:] = 255  # ignored, and no structure
    gallery = Gallery(volumes, count=3)
    for index in reversed(range(5)):  # whichever comes first, evenly spaced ones are shown
        label = volumes.items[index][1]
        gallery.update(index, torch.full(label.shape, index), label)
    arrays = gallery.arrays()
    assert [array.shape for array in arrays.values()] == [(3, 6, 6)] * 3
    for row, index in enumerate((0, 2, 4)):
        image, label = volumes.items[index]
        plane = image[0, index % 4]
        assert (arrays["labels"][row] == label[index % 4, :6, :6].numpy()).all()
        assert (arrays["predictions"][row] == index).all()
        expected = (plane - plane.min()) / (plane.max() - plane.min()) * 255
        assert np.abs(arrays["images"][row] - expected[:6, :6].numpy()).max() <= 1

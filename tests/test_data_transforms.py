import colorsys
import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glamlib.data import transforms
from glamlib.data.transforms import TrainTransform, normalise, photometric_distortion, resize
from glamlib.errors import InputError

PLAIN = {"scale_range": (1.0, 1.0), "flip": 0.0, "jitter": False}


def coordinates(height, width):
    """An image with its row in red and its column in green (+1: 0 means padding), and a label of (row + column) % 7."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows + 1, columns + 1, torch.full_like(rows, 99)]).to(torch.uint8)
    return image, ((rows + columns) % 7).to(torch.uint8)


def scripted(coins, end):
    """Stand in for a generator: draw the given coins in turn, and always the same end of a range."""
    return SimpleNamespace(random=iter(coins).__next__, uniform=lambda low, high: (low, high)[end])


YES, NO, LOW, HIGH = 0.0, 0.99, 0, 1


def test_the_generator_alone_decides_and_the_input_stays():
    image, label = coordinates(40, 60)
    before = image.clone(), label.clone()
    transform = TrainTransform((32, 48), cat_max_ratio=0.75)
    first = [transform(image, label, np.random.default_rng(5)) for _ in range(2)]
    other = transform(image, label, np.random.default_rng(6))
    assert all(torch.equal(a, b) for a, b in zip(*first, strict=True))
    assert not torch.equal(first[0][0], other[0])
    for shape in ((40, 60), (13, 17), (100, 30), (1, 1)):
        cropped, classes = transform(*coordinates(*shape), np.random.default_rng(0))
        assert (cropped.shape, classes.shape) == ((3, 32, 48), (32, 48))
        assert cropped.dtype == classes.dtype == torch.uint8
        assert set(classes.unique().tolist()) <= {*range(7), 255}
    out = TrainTransform((40, 60), **PLAIN)(image, label, np.random.default_rng(0))
    out[0].zero_(), out[1].zero_()  # an output never is the dataset's own tensor
    assert all(torch.equal(a, b) for a, b in zip((image, label), before, strict=True))


def test_crops_are_windows_reach_every_corner_and_half_of_them_are_flipped():
    image, label = coordinates(12, 11)
    transform = TrainTransform((10, 10), **(PLAIN | {"flip": 0.5}))
    corners = Counter()
    for seed in range(400):
        out_image, out_label = transform(image, label, np.random.default_rng(seed))
        flipped = bool(out_image[1, 0, 0] > out_image[1, 0, 9])
        if flipped:
            out_image, out_label = out_image.flip(-1), out_label.flip(-1)
        top, left = int(out_image[0, 0, 0]) - 1, int(out_image[1, 0, 0]) - 1
        assert torch.equal(out_image, image[:, top : top + 10, left : left + 10])
        assert torch.equal(out_label, label[top : top + 10, left : left + 10])
        corners[top, left, flipped] += 1
    assert corners.keys() == {*itertools.product(range(3), range(2), (False, True))}
    assert 160 <= sum(count for (_, _, flipped), count in corners.items() if flipped) <= 240  # 4 deviations of a coin


def test_small_images_are_padded_right_and_below_also_when_flipped():
    image, label = coordinates(3, 4)
    for flip, columns in ((0.0, [1, 2, 3, 4]), (1.0, [4, 3, 2, 1])):
        transform = TrainTransform((5, 7), (1.0, 1.0), flip, jitter=False)
        out_image, out_label = transform(image, label, np.random.default_rng(0))
        assert out_image[1, 0].tolist() == [*columns, 0, 0, 0]
        assert out_image[0, :, 0].tolist() == [1, 2, 3, 0, 0]
        assert out_label[0].tolist() == [*[column - 1 for column in columns], 255, 255, 255]
        assert out_label[:, 6].tolist() == [255] * 5


def test_scale_keeps_the_aspect_and_covers_its_range():
    image, label = coordinates(20, 40)
    transform = TrainTransform((60, 100), (0.5, 2.0), 0.0, jitter=False)
    heights = []
    for seed in range(200):
        inside = transform(image, label, np.random.default_rng(seed))[1] != 255
        height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
        assert abs(width - 2 * height) <= 1
        heights.append(height)
    assert 10 <= min(heights) <= 11
    assert 39 <= max(heights) <= 40
    assert 23 <= np.mean(heights) <= 27  # even over 10..40


@pytest.mark.parametrize(
    ("size", "long_short", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),  # the short side binds: nothing to do
        ((683, 512), (2048, 512), (683, 512)),  # portrait: the same sides
        ((256, 341), (2048, 512), (512, 682)),
        ((300, 2400), (2048, 512), (256, 2048)),  # longer than 4 : 1, the long side binds
        ((1024, 2048), (2049, 1025), (1025, 2049)),  # 1024 * 2049 / 2048 = 1024.5, rounded up
        ((1024, 2048), (1024, 512), (512, 1024)),
        ((1, 5000), (100, 50), (1, 100)),  # never less than a pixel
    ],
)
def test_keep_ratio_size_by_hand(size, long_short, expected):
    assert transforms.keep_ratio_size(*size, *long_short) == expected


def test_long_short_scales_to_a_size_that_does_not_depend_on_the_images():
    transform = TrainTransform((64, 128), flip=0.0, jitter=False, long_short=[200, 30])
    for seed in range(50):
        inside = transform(*coordinates(*((20, 40), (60, 120))[seed % 2]), np.random.default_rng(seed))[1] != 255
        height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
        assert height == int(30 * np.random.default_rng(seed).uniform(0.5, 2.0))  # the short side binds
        assert abs(width - 2 * height) <= 1


def test_padding_keeps_its_colour_and_may_be_the_mean():
    image, label = coordinates(3, 4)
    colour = tuple(round(value) for value in transforms.IMAGENET_MEAN)
    out, out_label = TrainTransform((5, 7), **PLAIN, fill=colour)(image, label, np.random.default_rng(0))
    assert normalise(out[None])[0][:, out_label == 255].abs().max() < 0.01
    assert torch.equal(out[:, :3, :4], image)
    for seed in range(30):
        out, out_label = TrainTransform((6, 8), (1.0, 1.0), 0.0, jitter=True)(image, label, np.random.default_rng(seed))
        assert out[:, out_label == 255].max() == 0


def test_image_and_label_stay_aligned_under_every_scale():
    # A step in the image and the same step in the label must lie at the same column, to rounding.
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    image[:, :, 24:] = 200
    label = (image[0] > 100).to(torch.uint8)
    for size in ((24, 32), (37, 49), (48, 64), (77, 103), (96, 128)):
        small_image, small_label = resize(image, label, size)
        assert ((small_image[0] > 100) != small_label.bool()).float().mean() <= 1 / size[1]
        assert abs(small_label.float().mean() - 40 / 64) <= 0.5 / size[1]
        assert set(small_label.unique().tolist()) == {0, 1}


def test_cat_max_ratio_prefers_crops_of_more_than_one_class():
    image = torch.zeros(3, 10, 100, dtype=torch.uint8)
    label = torch.zeros(10, 100, dtype=torch.uint8)
    label[:, 50:] = 1
    label[:5] = 255  # void takes no part in the ratio

    def mixed(ratio):
        transform = TrainTransform((10, 20), **PLAIN, cat_max_ratio=ratio)
        labels = [transform(image, label, np.random.default_rng(seed))[1] for seed in range(100)]
        return sum(bool((crop == 0).sum() > 12 and (crop == 1).sum() > 12) for crop in labels)

    # Of the 81 windows, 15 hold 3 columns or more of both classes (18 % of single draws count as mixed); 9 hold 6 or
    # more, that is less than 75 % of either class, and ten tries find one of these in 1 - (72 / 81)^10 = 69 % of cases.
    assert mixed(1.0) < 30
    assert 50 < mixed(0.75) < 90
    void = torch.full((10, 100), 255, dtype=torch.uint8)
    assert TrainTransform((10, 20), cat_max_ratio=0.75)(image, void, np.random.default_rng(0))[1].unique() == 255


def test_each_distortion_alone_is_the_published_one():
    pixels = torch.tensor([[10, 100, 250], [200, 120, 40], [0, 0, 0]], dtype=torch.uint8).T.reshape(3, 1, 3)

    def distorted(coins, end):
        return photometric_distortion(pixels, scripted(coins, end)).reshape(3, 3).T.tolist()

    # Coins: brightness, contrast, contrast before the colours, saturation, hue.
    assert distorted([NO, NO, NO, NO, NO], HIGH) == pixels.reshape(3, 3).T.tolist()
    assert distorted([YES, NO, NO, NO, NO], HIGH) == [[42, 132, 255], [232, 152, 72], [32, 32, 32]]
    assert distorted([YES, NO, NO, NO, NO], LOW) == [[0, 68, 218], [168, 88, 8], [0, 0, 0]]
    for first in (YES, NO):
        assert distorted([NO, YES, first, NO, NO], LOW) == [[5, 50, 125], [100, 60, 20], [0, 0, 0]]
        assert distorted([NO, YES, first, NO, NO], HIGH) == [[15, 150, 255], [255, 180, 60], [0, 0, 0]]
    # Saturation 0.8 x 1.5 stops at 1, so (200, 120, 40) becomes (200, 100, 0), and with contrast x 1.5 (255, 150, 0);
    # contrast first clips at 255 and gives (255, 180, 60), whose saturation 0.76 stops at 1, too.
    assert distorted([NO, YES, NO, YES, NO], HIGH)[1] == [255, 150, 0]
    assert distorted([NO, YES, YES, YES, NO], HIGH)[1] == [255, 157, 0]
    for coins, end, change in (
        ([NO, NO, NO, YES, NO], LOW, lambda h, s, v: (h, s * 0.5, v)),
        ([NO, NO, NO, YES, NO], HIGH, lambda h, s, v: (h, min(s * 1.5, 1), v)),
        ([NO, NO, NO, NO, YES], LOW, lambda h, s, v: ((h - 36 / 360) % 1, s, v)),
        ([NO, NO, NO, NO, YES], HIGH, lambda h, s, v: ((h + 36 / 360) % 1, s, v)),
    ):
        hsv = [colorsys.rgb_to_hsv(*(value / 255 for value in pixel)) for pixel in pixels.reshape(3, 3).T.tolist()]
        expected = np.array([colorsys.hsv_to_rgb(*change(*pixel)) for pixel in hsv]) * 255
        assert np.abs(np.array(distorted(coins, end)) - expected).max() <= 1


def test_normalise_by_hand():
    images = torch.tensor([0, 255, 124], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
    out = normalise(images)
    assert (out.shape, out.dtype) == ((2, 3, 4, 5), torch.float32)
    # (0 - 123.675) / 58.395, (255 - 116.28) / 57.12, (124 - 103.53) / 57.375
    expected = [-2.117904, 2.428571, 0.356776]
    assert out[1, :, 3, 4].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(normalise(images / 255), out, rtol=0, atol=1e-5)
    for bad in (images.float(), images / 255 - 0.1, images.long(), torch.full((1, 3, 2, 2), torch.nan)):
        with pytest.raises(InputError, match=r"allowed: .*uint8"):
            normalise(bad)

"""Inference in windows, at several scales and mirrored, of images and volumes, against loops and sums by hand."""

from functools import partial
from itertools import product

import pytest
import torch
from test_evaluation import Pictures, small
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as images_functional

from glamlib import create_model
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.evaluation.evaluate import evaluate
from glamlib.evaluation.inference import predict_logits, predict_volume_classes, slide_logits
from glamlib.studies.parameters import InferenceOptions

IMAGES = torch.randint(0, 256, (2, 3, 40, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("crop", "stride"), [((16, 24), (10, 16)), ((32, 16), (32, 7)), ((64, 20), (64, 20)), ((15, 21), (5, 7))]
)
@torch.no_grad()
def test_sliding_windows_against_a_loop_over_pixels(crop: tuple[int, int], stride: tuple[int, int]) -> None:
    """Windows at 0, stride, 2 stride ... until one reaches the border; that one is moved back to end there.

    Also where a stride over the window's side is no fraction that floating point holds exactly, as 5 of 15.
    """
    model, x = small(), normalise(IMAGES)
    height, width = x.shape[2:]
    options = InferenceOptions(mode="slide", crop=crop, stride=stride)

    def starts(length: int, crop: int, stride: int) -> list[int]:
        last = max(0, length - crop)
        return [*range(0, last, stride), last]

    seen: list[list[list[Tensor]]] = [[[] for _ in range(width)] for _ in range(height)]
    for top in starts(height, crop[0], stride[0]):
        for left in starts(width, crop[1], stride[1]):
            logits = model(x[:, :, top : top + crop[0], left : left + crop[1]])
            for row in range(logits.shape[2]):
                for column in range(logits.shape[3]):
                    seen[top + row][left + column].append(logits[:, :, row, column])
    expected = torch.stack([torch.stack([torch.stack(pixel).mean(0) for pixel in row], -1) for row in seen], -2)
    torch.testing.assert_close(predict_logits(model, IMAGES, options), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_scales_and_mirror_images_average_probabilities_by_hand() -> None:
    model = small()
    total = torch.zeros(2, 3, 40, 52)
    for size in ((20, 26), (40, 52), (60, 78)):
        resized = images_functional.resize(IMAGES, list(size), antialias=True)
        for axes in ((), (-1,)):
            logits = F.interpolate(model(normalise(resized.flip(axes))), (40, 52), mode="bilinear").flip(axes)
            total += logits.softmax(1)
    found = predict_logits(model, IMAGES, InferenceOptions(scales=[0.5, 1, 1.5], flip=True))
    torch.testing.assert_close(found, total / 6, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, model(normalise(IMAGES)).softmax(1), atol=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("Storage size calculation overflowed with sizes=[1, 3, 32000000000, 32000000000]"),
    ],
)
def test_too_little_memory_names_the_images(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> Tensor:
        raise error

    model = small()
    monkeypatch.setattr(model, "forward", refuse)
    with pytest.raises(InputError, match=r"picture-0, picture-1: 2 item\(s\) of 20x24 do not fit"):
        evaluate(model, Pictures((20, 24), (20, 24)), 2)


class Volumes(Pictures):
    """Random volumes of given sizes."""

    classes, preprocessing = ("background", "a", "b"), None

    def __init__(self, *sizes: tuple[int, int, int]) -> None:
        rng = torch.Generator().manual_seed(0)
        self.items = [
            (torch.randn(1, *size, generator=rng), torch.randint(0, 3, size, generator=rng).byte()) for size in sizes
        ]

    def spacing(self, index: int) -> tuple[float, float, float]:
        return (1.0, 1.0, 1.0)


def small_volumes(**overrides: object) -> nn.Module:
    torch.manual_seed(0)
    shape = {"embed_dim": 8, "depths": [2], "num_heads": [2], "num_global_tokens": 2}
    model = create_model("glam_nnformer_nano", num_classes=3, in_channels=1, **shape | overrides).eval()
    nn.init.normal_(model.decoder.head.weight)  # else one class wins everywhere
    return model


def predictions_of(model: nn.Module, volumes: Volumes, size: tuple[int, int, int], batch: int = 1) -> list[Tensor]:
    found: list[Tensor] = []
    predict = partial(predict_volume_classes, model, patch_size=size, batch_size=batch, precision="fp32")
    confusion = evaluate(model, volumes, 1, lambda index, guess, label: found.append(guess), predict)
    assert confusion.compute().sum() == sum(label.numel() for _, label in volumes.items)
    return found


@torch.no_grad()
def test_a_volume_smaller_than_a_patch_is_padded_with_its_lowest_value_and_cut() -> None:
    model, volumes = small_volumes(), Volumes((9, 30, 7))
    (guess,) = predictions_of(model, volumes, (16, 30, 12))
    image = volumes.items[0][0]
    padded = F.pad(image, (2, 3, 0, 0, 3, 4), value=float(image.min()))
    assert torch.equal(guess, model(padded[None])[0].argmax(0)[3:12, :, 2:9])


def blended(model: nn.Module, image: Tensor, side: int) -> Tensor:
    """Return the mean of overlapping patches' logits, weighted by a Gaussian of an eighth of the side; step a half."""
    place = torch.arange(side) - (side - 1) / 2
    line = (-0.5 * (place / (side / 8)) ** 2).exp()
    weight = (line[:, None, None] * line[:, None] * line).clamp(min=1e-3)  # MONAI's floor
    total, weights = torch.zeros(3, *image.shape[1:]), torch.zeros(image.shape[1:])
    starts = [sorted({*range(0, s - side, side // 2), s - side}) for s in image.shape[1:]]
    for d, h, w in product(*starts):
        inside = (slice(d, d + side), slice(h, h + side), slice(w, w + side))
        total[:, *inside] += weight * model(image[None, :, *inside])[0]
        weights[inside] += weight
    return total / weights


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_overlapping_patches_are_blended_by_gaussian_weights(batch: int) -> None:
    model, volumes = small_volumes(), Volumes((16, 21, 8))
    (guess,) = predictions_of(model, volumes, (8, 8, 8), batch)
    logits = blended(model, volumes.items[0][0], 8)
    first, second = logits.topk(2, dim=0).values
    clear = first - second > 1e-3
    assert clear.float().mean() > 0.99
    assert torch.equal(guess[clear], logits.argmax(0)[clear])
    whole = model(volumes.items[0][0][None])[0].argmax(0)
    assert (whole != guess).any(), "patches change nothing here: the test could not fail"


def test_low_precision_is_summed_in_float32() -> None:
    """Under autocast a network gives bfloat16; sums of it over a hundred patches would lose the small weights."""
    x = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    low = slide_logits(lambda part: part.bfloat16(), x, (8, 8), (4, 4), "gaussian")
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, x.bfloat16().float(), rtol=1e-5, atol=1e-5)

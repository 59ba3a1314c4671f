"""Evaluation, cue accuracy, examples and insight, against counting and differentiating by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from glamlib import create_model
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.evaluation.cues import BIN, CueAccuracy
from glamlib.evaluation.evaluate import evaluate
from glamlib.evaluation.gallery import Gallery
from glamlib.evaluation.insight import attention_rollout, effective_receptive_field


class Pictures:
    """Random images of given sizes, with some void."""

    classes = ("a", "b", "c")
    palette = ((0, 0, 0),) * 3
    ignore_index = 255

    def __init__(self, *sizes: tuple[int, int]) -> None:
        torch.manual_seed(0)
        self.items = [
            (torch.randint(0, 256, (3, *size), dtype=torch.uint8), torch.randint(0, 3, size, dtype=torch.uint8))
            for size in sizes
        ]
        for _, label in self.items:
            label[:2] = 255

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"picture-{index}"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def small(name: str = "glam_swin_nano_linear", **overrides: object) -> torch.nn.Module:
    torch.manual_seed(0)
    tokens = {"num_global_tokens": 2} if name.startswith("glam") else {}
    return create_model(name, num_classes=3, depths=(2,), num_heads=(2,), **tokens | overrides).eval()


def test_counts_are_those_of_each_image_alone_whatever_the_batch() -> None:
    pictures = Pictures((20, 24), (20, 24), (20, 24), (32, 16), (20, 24))
    model = small()
    expected = np.zeros((3, 3), dtype=int)
    for image, label in pictures.items:
        with torch.no_grad():
            guess = model(normalise(image[None]))[0].argmax(dim=0)
        for truth, found in zip(label.flatten().tolist(), guess.flatten().tolist(), strict=True):
            if truth != 255:
                expected[truth, found] += 1
    seen: list[int] = []
    for batch_size in (1, 2, 8):
        found = evaluate(model, pictures, batch_size, on_image=lambda index, *_: seen.append(index))
        assert (found.counts == expected).all()
    assert seen == list(range(5)) * 3


def test_an_image_smaller_than_a_window_is_named() -> None:
    pictures = Pictures((20, 24), (15, 40))
    with pytest.raises(InputError, match=r"picture-1: the image of 15x40 px is smaller than one window of 16x16 px"):
        evaluate(small(), pictures)


def test_cue_accuracy_by_hand() -> None:
    scenes = CueScenes(SceneConfig(size=64, num_shapes=3), 4, 7)
    cues = CueAccuracy(scenes)
    right, total, near = 0, 0, [0, 0]
    for index in range(len(scenes)):
        scene = scenes.scene(index)
        guess = torch.full((64, 64), 1)  # always the first cue's class
        cues.update(index, guess, torch.from_numpy(scene.label))
        right += int((scene.label == 1).sum())
        total += int((scene.label > 0).sum())
        for number, distance in enumerate(scene.distances, start=1):
            if 3 * BIN <= distance < 4 * BIN:
                near[0] += int(((scene.shapes == number) & (scene.label == 1)).sum())
                near[1] += int((scene.shapes == number).sum())
    metrics = cues.metrics()
    assert metrics["cue_accuracy"] == pytest.approx(right / total)
    assert metrics["cue_chance"] == 0.5
    (row,) = (row for row in metrics["by_distance"] if row["from_px"] == 3 * BIN)
    assert row["pixels"] == near[1] > 0
    assert row["accuracy"] == pytest.approx(near[0] / near[1])
    assert sum(row["pixels"] for row in metrics["by_distance"]) == total


def test_gallery_keeps_the_same_images_for_every_run() -> None:
    scenes = CueScenes(SceneConfig(size=32, num_shapes=1), 9, 0)
    gallery = Gallery(scenes, count=3)
    for index in range(9):
        gallery.update(index, torch.full((32, 32), index))
    arrays = gallery.arrays(small())
    assert arrays["predictions"][:, 0, 0].tolist() == [0, 4, 8]
    for place, index in enumerate((0, 4, 8)):
        assert (arrays["images"][place] == scenes[index][0].numpy()).all()
        assert (arrays["labels"][place] == scenes[index][1].numpy()).all()
    assert arrays["erf"].shape == (32, 32)
    assert arrays["erf"].max() == 1


def test_receptive_field_is_the_gradient_and_ends_where_swin_ends() -> None:
    images = torch.stack([CueScenes(SceneConfig(), 2, 0)[index][0] for index in range(2)])
    swin, glam = small("swin_nano_linear"), small()
    field = effective_receptive_field(swin, images)
    assert field.sum() == pytest.approx(1, abs=1e-5)
    x = normalise(images).requires_grad_(True)
    swin(x)[:, :, 32, 32].sum().backward()
    expected = x.grad.abs().sum(dim=(0, 1))
    assert field == pytest.approx((expected / expected.sum()).numpy(), abs=1e-7)
    # the shifted window of the centre covers rows 24 to 39, which saw the windows of rows 16 to 47; bilinear resizing
    # of the logits adds a patch, and so at most another window
    assert (field[:8] == 0).all()
    assert (effective_receptive_field(glam, images)[:8] > 0).any()


@pytest.mark.parametrize("tokens", [0, 2])
def test_rollout_reaches_exactly_what_gradients_reach(tokens: int) -> None:
    """Attention flows where a gradient flows: the patches that can matter to a patch are the same set."""
    torch.manual_seed(0)
    model = small(num_global_tokens=tokens, window_size=2)
    image = torch.randn(1, 3, 24, 20)  # a 6x5 map: windows that do not divide it
    flow = attention_rollout(model.encoder, image)
    assert flow.shape == (30, 30)
    assert flow.sum(dim=1) == pytest.approx(torch.ones(30), abs=1e-5)
    embedded = model.encoder.patch_embed(image).detach().requires_grad_(True)
    output = model.encoder.layers[0](embedded)
    for asking in (0, 7, 29):
        (gradient,) = torch.autograd.grad(
            output[0, asking // 5, asking % 5].square().sum(), embedded, retain_graph=True
        )
        reached = gradient[0].abs().sum(dim=-1).flatten() > 1e-15
        # a masked pair keeps exp(-100), some 1e-44
        assert ((flow[asking] > 1e-15) == reached).all()
        assert reached.all() == bool(tokens)


def test_rollout_of_one_unshifted_block_by_hand() -> None:
    torch.manual_seed(0)
    model = create_model("swin_nano_linear", num_classes=3, depths=(1,), num_heads=(2,)).eval()
    image = torch.randn(1, 3, 16, 16)  # one window of the whole map
    traces: list[dict] = []
    model.encoder.stages(image, traces)
    expected = (torch.eye(16) + traces[0]["window"][0, 0].mean(dim=0)) / 2
    torch.testing.assert_close(attention_rollout(model.encoder, image), expected, rtol=1e-5, atol=1e-6)

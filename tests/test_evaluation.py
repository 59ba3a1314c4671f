"""Evaluation, metrics, cue accuracy, pictures and insight, against torchmetrics and derivations by hand."""

import math
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from glamlib import create_model
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.evaluation.cues import BIN, CueAccuracy, ceiling_by_distance, steps_to_criterion
from glamlib.evaluation.evaluate import ImageScores, evaluate
from glamlib.evaluation.inference import predict_classes
from glamlib.evaluation.insight import attention_rollout, effective_receptive_field, finest_stage
from glamlib.evaluation.metrics import ConfusionMatrix, location_prior
from glamlib.layers.windows import window_partition


class Pictures:
    """Random images of given sizes, with some void."""

    classes, palette, ignore_index = ("a", "b", "c"), ((0, 0, 0),) * 3, 255

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
    return create_model(name, num_classes=3, **{"depths": (2,), "num_heads": (2,)} | tokens | overrides).eval()


def test_where_the_system_does_not_say_how_much_data_a_process_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has other fields than Linux."""
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=1, vms=1, pfaults=1, pageins=1))
    assert predict_classes(small(), Pictures((8, 8)).items[0][0][None]).shape == (1, 8, 8)


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
        assert (found.compute().numpy() == expected).all()
    assert seen == list(range(5)) * 3


def test_equals_torchmetrics_over_several_uneven_updates() -> None:
    torch.manual_seed(0)
    matrix = ConfusionMatrix(6)
    jaccard = MulticlassJaccardIndex(6, average="none", ignore_index=255)
    macro, micro = (MulticlassAccuracy(6, average=average, ignore_index=255) for average in ("macro", "micro"))
    for size in (3, 17, 40):
        label = torch.randint(0, 6, (2, size, size))
        prediction = torch.where(torch.rand(label.shape) < 0.6, label, torch.randint(0, 6, label.shape))
        label[torch.rand(label.shape) < 0.1] = 255
        matrix.update(prediction, label)
        for metric in (jaccard, macro, micro):
            metric.update(prediction, label)
    metrics, iou = matrix.metrics(), jaccard.compute()
    assert metrics["iou"] == pytest.approx(iou.tolist(), abs=1e-6)
    expected = [float(value) for value in (iou.mean(), macro.compute(), micro.compute())]
    assert [metrics[name] for name in ("miou", "mean_accuracy", "pixel_accuracy")] == pytest.approx(expected, abs=1e-6)


def test_by_hand_with_an_absent_class_and_void() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 255, 1]))
    metrics = matrix.metrics()
    assert metrics["iou"][:3] == [1 / 2, 1 / 3, 0.0]  # class 2: predicted once, never true
    assert math.isnan(metrics["iou"][3])  # class 3: nowhere
    assert metrics["miou"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert metrics["pixel_accuracy"] == 2 / 4


def test_label_out_of_range_names_value_and_range() -> None:
    with pytest.raises(InputError, match=r"label value 7: allowed are 0 to 2 and 255"):
        ConfusionMatrix(3).update(torch.tensor([0]), torch.tensor([7]))


def test_pixels_of_each_image_add_up_to_the_confusion_matrix() -> None:
    dataset = Pictures((4, 5), (4, 5), (4, 5))  # of which the first rows are void
    scores, matrix = ImageScores(dataset), ConfusionMatrix(3)
    for index in (1, 0, 2):
        label = dataset[index][1]
        prediction = torch.randint(0, 3, label.shape)
        scores.update(index, prediction, label)
        matrix.update(prediction, label)
    cases = scores.metrics()["cases"]
    assert [case["name"] for case in cases] == [dataset.name(index) for index in range(3)]
    sums = np.zeros((3, 3), int)
    for case in cases:
        sums[:, case["classes"]] += [case["hits"], case["truth"], case["guess"]]
    counts = matrix.compute().numpy()
    assert sums.tolist() == [counts.diagonal().tolist(), counts.sum(1).tolist(), counts.sum(0).tolist()]


def test_an_image_blind_prior_by_hand() -> None:
    """Class 0 mostly on the left, 1 on the right; a test label has class 2 in the right half's lower part."""
    train, test = Pictures((48, 48), (48, 48), (24, 24)), Pictures((40, 60))
    for _, label in train.items:
        side = label.shape[1] // 2
        label[:, :side], label[:, side:] = 0, 1
    train.items[1][1][:] = 2  # outvoted, whatever the sizes
    label = test.items[0][1]
    label[:, :30], label[:30, 30:], label[30:, 30:] = 0, 1, 2
    assert location_prior(train, test) == pytest.approx((1 + 30 / 40 + 0) / 3)
    for pictures in (train, test):
        pictures.items = [(image, label[..., None].repeat(1, 1, 5)) for image, label in pictures.items]
    assert location_prior(train, test) == pytest.approx((2 * 30 / (30 + 40) + 0) / 2)  # Dice of classes 1 and 2


def test_cue_accuracy_by_hand() -> None:
    scenes = CueScenes(SceneConfig(size=64, num_shapes=3), 4, 7)
    cues = CueAccuracy(scenes)
    right, found, pixels, near = 0, 0, [0, 0, 0], [0, 0]
    for index in range(len(scenes)):
        scene = scenes.scene(index)
        guess = np.where(scene.shapes == 1, 0, 1)  # the first shape is missed; all else has the first cue's class
        cues.update(index, torch.from_numpy(guess), torch.from_numpy(scene.label))
        pixels = [count + int((scene.label == number).sum()) for number, count in enumerate(pixels)]
        right += int(((scene.label == 1) & (scene.shapes > 1)).sum())
        found += int((scene.shapes > 1).sum())
        for number, distance in enumerate(scene.distances, start=1):
            if 3 * BIN <= distance < 4 * BIN:
                near[0] += int(((scene.shapes == number) & (scene.label == guess)).sum())
                near[1] += int((scene.shapes == number).sum())
    metrics, total = cues.metrics(), pixels[1] + pixels[2]
    assert metrics["cue_accuracy"] == pytest.approx(right / total)
    assert metrics["found"] == pytest.approx(found / total)
    assert metrics["right_given_found"] == pytest.approx(right / found)
    assert metrics["cue_chance"] == 0.5
    assert metrics["cue_constant"] == pytest.approx(max(pixels[1:]) / total)
    assert metrics["escaped"] == 0
    (row,) = (row for row in metrics["by_distance"] if row["from_px"] == 3 * BIN)
    assert row["pixels"] == near[1] > 0
    assert row["accuracy"] == pytest.approx(near[0] / near[1])
    assert sum(row["pixels"] for row in metrics["by_distance"]) == total
    # who finds all and guesses: cross-entropy of logits that are even over the two classes
    shares = torch.tensor(pixels[1:], dtype=torch.float64) / total
    guessing = torch.nn.functional.cross_entropy(shares.log()[None], shares[None]) * total / sum(pixels)
    assert metrics["guessing_loss"] == pytest.approx(guessing.item())

    perfect = CueAccuracy(scenes)
    for index in range(len(scenes)):
        perfect.update(index, *[torch.from_numpy(scenes.scene(index).label)] * 2)
    assert [perfect.metrics()[name] for name in ("found", "right_given_found", "escaped")] == [1, 1, 1]


def test_what_windows_allow_by_hand() -> None:
    """Two blocks of windows of 4 patches of 4 px, the second shifted by 2: a patch p sees those from 4k to 4k + 7, with
    k = floor((p - 2) / 4); the decoder interpolates between two patches."""
    scenes = CueScenes(SceneConfig(), 20, 2)
    found = ceiling_by_distance(small("swin_nano_linear"), scenes).set_index("distance")["accuracy"]
    rows = {middle: [] for middle in found.index}
    for index in range(len(scenes)):
        scene = scenes.scene(index)
        for pixel in np.argwhere(scene.shapes):
            between = np.floor((pixel + 0.5) / 4 - 0.5)
            low, high = between.clip(0), (between + 1).clip(max=15)
            start, stop = 16 * ((low - 2) // 4), 16 * ((high - 2) // 4) + 32
            told = all(a < c + 9 and c < b for a, b, c in zip(start, stop, scene.cells[0], strict=True))
            rows[scene.distances[scene.shapes[tuple(pixel)] - 1] // 8 * 8 + 4].append(1.0 if told else 0.5)
    for middle, values in rows.items():
        assert found[middle] == pytest.approx(np.mean(values))
    assert found.iloc[0] > 0.99
    assert found.iloc[-1] == 0.5


def test_steps_to_a_criterion_by_hand() -> None:
    """Means of five rows: 0.62 at step 60, 0.44 at 70. A run that stays above has none."""
    losses = [0.7, 0.7, 0.7, 0.7, 0.7, 0.3, 0.1, 0.1]
    history = [{"step": 10 * number, "loss": loss} for number, loss in enumerate(losses, start=1)]
    assert steps_to_criterion(history, 0.6) == 70
    assert steps_to_criterion(history, 0.65) == 60
    assert math.isnan(steps_to_criterion(history, 0.1))


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


def rollout_by_matrices(model: torch.nn.Module, image: Tensor, stage: int) -> Tensor:
    """Attention rollout as it is defined: a product of matrices over the state of all patches, then all tokens."""
    traces: list[dict] = []
    model.encoder.stages(image, traces)
    traces = traces[2 * stage : 2 * stage + 2]
    size = traces[0]["layout"].size
    patches = size[0] * size[1]
    tokens = traces[0]["window"].shape[-1] - traces[0]["layout"].window_area
    states = patches + traces[0]["layout"].num_windows * tokens
    flow = torch.eye(states)
    for trace in traces:
        layout, step = trace["layout"], torch.zeros(states, states)
        numbers = torch.full(layout.padded, -1)
        numbers[: size[0], : size[1]] = torch.arange(patches).view(size)
        windows = window_partition(numbers.roll([-s for s in layout.shift], (0, 1))[None, ..., None], layout.window)
        for number, window in enumerate(windows[0, :, :, 0]):
            places = [*range(patches + number * tokens, patches + (number + 1) * tokens), *window.tolist()]
            real = [i for i, place in enumerate(places) if place >= 0]
            weights = trace["window"][0, number].mean(dim=0)[real][:, real]
            places = torch.tensor(places)[real]
            step[places[:, None], places] = weights
        flow = (flow + step @ flow) / 2
        if trace["global"] is not None:
            mixed = torch.eye(states)
            mixed[patches:, patches:] = trace["global"][0].mean(dim=0)
            flow = (flow + mixed @ flow) / 2
    flow = flow[:patches, :patches]
    return flow / flow.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("stage", [0, 1])
@torch.no_grad()
def test_rows_of_the_rollout_are_those_of_the_product_of_matrices(stage: int, tokens: int) -> None:
    model = small(num_global_tokens=tokens, window_size=2, depths=(2, 2), num_heads=(2, 4))
    image = torch.randn(1, 3, 40, 36)  # maps of 10x9 and 5x5 patches: windows that do not divide them
    expected = rollout_by_matrices(model, image, stage)
    torch.testing.assert_close(attention_rollout(model.encoder, image, stage), expected, rtol=1e-4, atol=1e-7)
    row = attention_rollout(model.encoder, image, stage, [17])
    torch.testing.assert_close(row, expected[17:18], rtol=1e-4, atol=1e-7)


def test_the_finest_stage_is_the_first_whose_attention_is_small() -> None:
    """A photo of two megapixels by the Tiny size: 26,400 tokens at a quarter of its size, 6,600 at an eighth."""
    with torch.device("meta"):
        swin, glam = (create_model(f"{name}_tiny_linear", num_classes=3) for name in ("swin", "glam_swin"))
    assert [finest_stage(model.encoder, (1224, 1632)) for model in (swin, glam)] == [0, 1]
    with pytest.raises(InputError, match="Swin and GLAM alone"):
        finest_stage(small(mixer="full").encoder, (64, 64))

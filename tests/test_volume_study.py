"""Losses, scores, inference and whole runs on volumes, against MONAI, brute force and sums by hand."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from glamlib import create_model, studies
from glamlib.cost.count import cost
from glamlib.data.brains import brain_labels
from glamlib.evaluation.evaluate import evaluate_volumes
from glamlib.evaluation.gallery import VolumeGallery
from glamlib.evaluation.metrics import VolumeScores
from glamlib.report import figures, tables
from glamlib.report.tables import read_table, run_table, write_tables
from glamlib.runs.records import open_run_folder, write_record
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import VOLUME_DATA, run_datasets
from glamlib.training.loop import train
from glamlib.training.losses import cross_entropy, deeply_supervised, dice_and_cross_entropy, soft_dice_loss
from glamlib.training.tasks import task_of

VOLUME_STUDIES = [name for name, study in studies.STUDIES.items() if study.dataset in VOLUME_DATA]


def logits_and_labels(size: tuple[int, ...] = (4, 5, 6), classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, classes, *size, generator=rng), torch.randint(0, classes, (2, *size), generator=rng)


# Losses


def test_soft_dice_is_monais_where_every_voxel_is_known() -> None:
    from monai.losses import DiceLoss

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
    alone = dice_and_cross_entropy(logits, labels.to(torch.uint8), 255)  # labels come as uint8
    assert deeply_supervised([logits], labels.to(torch.uint8), 255).item() == pytest.approx(alone.item())


# Scores


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


def test_scores_by_brute_force_in_millimetres() -> None:
    spacings = [(1.0, 1.0, 1.0), (3.0, 0.5, 1.25)]
    scores = VolumeScores(("background", "a", "b"))
    expected = {"dice": [], "hd95": []}
    for case, spacing in enumerate(spacings):
        guess, truth = blobs(case), blobs(case + 10)
        scores.update(f"case {case}", guess, truth, spacing)
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


def test_dice_is_monais_and_torchmetrics() -> None:
    from monai.metrics import compute_dice
    from torchmetrics.functional import f1_score

    guess, truth = blobs(0, classes=4), blobs(1, classes=4)
    scores = VolumeScores(("background", "a", "b", "c"))
    scores.update("case", guess, truth, (1.0, 1.0, 1.0))
    found = scores.metrics()["dice_by_class"]
    theirs = compute_dice(*(F.one_hot(x, 4).movedim(-1, 0)[None] for x in (guess, truth)), include_background=False)
    assert found == pytest.approx(theirs[0].tolist())
    # over one volume, Dice of a class is F1 of its voxels
    f1 = f1_score(guess.flatten(), truth.flatten(), task="multiclass", num_classes=4, average="none")
    assert found == pytest.approx(f1[1:].tolist())


def test_empty_structures_under_both_rules() -> None:
    """In one case structure a is only predicted, b only true, c in neither, d right."""
    truth, guess = torch.zeros(6, 6, 6, dtype=torch.uint8), torch.zeros(6, 6, 6, dtype=torch.int64)
    guess[0, 0, 0], truth[5, 5, 5] = 1, 2
    guess[2:4, 2:4, 2:4] = truth[2:4, 2:4, 2:4] = 4
    scores = VolumeScores(("background", "a", "b", "c", "d"))
    scores.update("case", guess, truth, (2.0, 2.0, 2.0))
    found = scores.metrics()
    assert found["dice_by_class"] == pytest.approx([0, 0, np.nan, 1], nan_ok=True)
    assert found["dice"] == pytest.approx(1 / 3)
    assert found["hd95_mm_by_class"] == pytest.approx([np.nan, np.nan, np.nan, 0], nan_ok=True)
    assert found["hd95_mm"] == 0
    assert found["undefined"] == {"dice": 1, "hd95": 3, "pairs": 4}
    assert found["dice_synapse_rule"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert found["hd95_synapse_rule_mm"] == 0
    # a second case that has all four: the undefined one is left out of the structure's mean, not counted as 0
    full = torch.zeros(6, 6, 6, dtype=torch.uint8)
    for k in range(1, 5):
        full[k] = k
    half = full.long()
    half[:, :3] = 0
    scores.update("other", half, full, (2.0, 2.0, 2.0))
    two_thirds = 2 * 18 / (18 + 36)
    found = scores.metrics()
    expected = [two_thirds / 2, two_thirds / 2, two_thirds, (1 + two_thirds) / 2]
    assert found["dice_by_class"] == pytest.approx(expected)
    assert found["dice"] == pytest.approx(np.mean(expected))
    assert found["undefined"] == {"dice": 1, "hd95": 3, "pairs": 8}
    assert found["dice_synapse_rule"] == pytest.approx((2 + 4 * two_thirds) / 8)


def test_nothing_predicted_is_dice_zero_and_no_distance() -> None:
    scores = VolumeScores(("background", "a", "b"))
    scores.update("case", torch.zeros(9, 8, 10, dtype=torch.int64), blobs(0), (1.0, 1.0, 1.0))
    found = scores.metrics()
    assert found["dice"] == 0
    assert np.isnan(found["hd95_mm"])
    assert found["undefined"] == {"dice": 0, "hd95": 2, "pairs": 2}
    json.dumps(found)  # plain numbers


# Sliding windows


class Volumes:
    """Random volumes of given sizes, whose labels may be all background."""

    classes = ("background", "a", "b")
    ignore_index = 255

    def __init__(self, *sizes: tuple[int, int, int], empty: bool = False) -> None:
        rng = torch.Generator().manual_seed(0)
        self.items = [
            (torch.randn(1, *size, generator=rng), torch.randint(0, 1 if empty else 3, size, generator=rng).byte())
            for size in sizes
        ]

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"volume-{index}"

    def spacing(self, index: int) -> tuple[float, float, float]:
        return (1.0, 1.0, 1.0)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def small(**overrides: object) -> nn.Module:
    torch.manual_seed(0)
    shape = {"embed_dim": 8, "depths": [2], "num_heads": [2], "num_global_tokens": 2}
    model = create_model("glam_nnformer_nano", num_classes=3, in_channels=1, **shape | overrides).eval()
    nn.init.normal_(model.decoder.head.weight)  # else one class wins everywhere
    return model


def predictions_of(model: nn.Module, volumes: Volumes, size: tuple[int, int, int], batch: int = 1) -> list[Tensor]:
    found: list[Tensor] = []
    confusion = evaluate_volumes(model, volumes, size, batch, on_volume=lambda index, guess, label: found.append(guess))
    assert confusion.counts.sum() == sum(label.numel() for _, label in volumes.items)
    return found


@torch.no_grad()
def test_a_volume_of_one_patch_is_predicted_whole() -> None:
    model, volumes = small(), Volumes((16, 12, 20), (16, 12, 20))
    for (image, _), guess in zip(volumes.items, predictions_of(model, volumes, (16, 12, 20)), strict=True):
        assert torch.equal(guess, model(image[None])[0].argmax(0))
        assert len(guess.unique()) > 1


@torch.no_grad()
def test_a_volume_smaller_than_a_patch_is_padded_with_its_lowest_value_and_cut() -> None:
    model, volumes = small(), Volumes((9, 30, 7))
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
    model, volumes = small(), Volumes((16, 21, 8))
    (guess,) = predictions_of(model, volumes, (8, 8, 8), batch)
    logits = blended(model, volumes.items[0][0], 8)
    first, second = logits.topk(2, dim=0).values
    clear = first - second > 1e-3
    assert clear.float().mean() > 0.99
    assert torch.equal(guess[clear], logits.argmax(0)[clear])
    whole = model(volumes.items[0][0][None])[0].argmax(0)
    assert (whole != guess).any(), "patches change nothing here: the test could not fail"


def test_a_tile_without_truth_is_predicted_all_the_same() -> None:
    """The released code leaves it out, and so never predicts a structure where there is none."""
    model, volumes = small(), Volumes((16, 16, 16), empty=True)
    (guess,) = predictions_of(model, volumes, (8, 8, 8))
    for corner in product((slice(0, 8), slice(8, 16)), repeat=3):
        assert guess[corner].any()


def test_gallery_keeps_the_slice_with_most_of_the_structures() -> None:
    volumes = Volumes((5, 6, 7), (5, 6, 7), (4, 7, 6), (5, 6, 7), (5, 6, 9))
    for index, (_, label) in enumerate(volumes.items):
        label[:] = 0
        label[index % 4, 1:4, 2] = 1
        label[3 - index % 4, 1, 1] = 2
    gallery = VolumeGallery(volumes, count=3)
    for index, (_, label) in enumerate(volumes.items):
        gallery.update(index, torch.full(label.shape, index))
    arrays = gallery.arrays()
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == dict.fromkeys(
        ("images", "labels", "predictions"), ((3, 6, 6), np.uint8)
    )
    for row, index in enumerate((0, 2, 4)):
        image, label = volumes.items[index]
        plane = image[0, index % 4]
        assert (arrays["labels"][row] == label[index % 4, :6, :6].numpy()).all()
        assert (arrays["predictions"][row] == index).all()
        expected = (plane - plane.min()) / (plane.max() - plane.min()) * 255
        assert np.abs(arrays["images"][row] - expected[:6, :6].numpy()).max() <= 1


# Whole runs


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def add_case(images: Path, labels: Path, name: str, values: tuple[int, ...], size: tuple[int, int, int]) -> None:
    """Save an image whose grey values tell the label, and a label of blocks of all ``values``."""
    rng = np.random.default_rng(0)
    label = np.zeros(size, np.uint8)
    inner = label[2:-2, 2:-2, 2:-2]
    inner[:] = np.resize(np.repeat(values, 3), inner.shape[0])[:, None, None]
    save(images / f"{name}.nii.gz", (100 + label + rng.integers(0, 5, size)).astype(np.int16))
    save(labels / f"{name}.nii.gz", label)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a hippocampus of ten cases and brains of three, in their layouts."""
    root = tmp_path / "data"
    for number in range(1, 11):
        size = (18 + number, 20, 22)  # w, h, d: they differ
        add_case(root / "hippocampus/imagesTr", root / "hippocampus/labelsTr", f"hippocampus_{number:03}", (1, 2), size)
    values = tuple(v for v, number in brain_labels(sides=True).numbers.items() if number)[:30]
    for name in ("1000", "1001", "1003"):
        add_case(root / "brains/images", root / "brains/labels", name, values, (40, 36, 34))
    (root / "brains/train.txt").write_text("1000\n1001\n")
    (root / "brains/test.txt").write_text("1003\n")
    monkeypatch.setenv("GLAM_DATA", str(root))
    return root


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """accelerate keeps one precision a process: these tests need another than the tests around them."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


_TINY = {
    "volumes_cues": ({"size": 16, "num_shapes": 1, "cue_size": 3, "train": 6, "test": 2}, {}),
    "volumes_hippocampus": ({"limit": 3}, {"patch_size": [16, 16, 16]}),
    "volumes_brains": ({}, {"patch_size": [32, 32, 32]}),
}


def tiny(study: str, variant: str, profile: str, steps: int = 3) -> RunParameters:
    run = studies.STUDIES[study].run(variant, 0, profile)
    data, augment = _TINY[study]
    return replace(
        run,
        steps=steps,
        batch_size=2,
        device="cpu",
        workers=min(run.workers, 1),
        data=run.data | data,
        augment=run.augment | augment,
    )


def carried_out(run: RunParameters, checkpoint: Path) -> tuple[nn.Module, list, dict, dict, tuple[str, ...]]:
    """Do what the training notebook does."""
    train_data, test_data = run_datasets(run)
    torch.manual_seed(run.seed)
    model = create_model(
        run.model, num_classes=len(train_data.classes), in_channels=train_data[0][0].shape[0], **run.overrides
    )
    history, _ = train(model, train_data, run, checkpoint)
    metrics, arrays = task_of(run).evaluate(model, test_data, run)
    return model, history, metrics, arrays, train_data.classes


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("study", ["volumes_cues", "volumes_hippocampus"])
def test_a_run_again_is_the_same_bits(study: str, tmp_path: Path) -> None:
    run = tiny(study, "glam_1", "quick")
    (one, history, metrics, arrays, _), (two, *again) = (
        carried_out(run, tmp_path / f"{name}.safetensors") for name in "ab"
    )
    for (name, a), (_, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert again[0] == history
    assert str(again[1]) == str(metrics)  # NaN is not equal to itself
    assert {name: (again[2][name] == array).all() for name, array in arrays.items()} == dict.fromkeys(arrays, True)
    other, *_ = carried_out(replace(run, seed=1), tmp_path / "c.safetensors")
    assert not torch.equal(other.decoder.head.weight, one.decoder.head.weight)


def test_a_run_on_images_is_a_plain_loop(tmp_path: Path) -> None:
    """What volumes brought (tasks, losses) leaves a run on images as it was: cross-entropy, 0.4 of the auxiliary's."""
    run = replace(
        studies.DECODERS.run("swin_upernet", 0, "quick"),
        data={"size": 32, "num_shapes": 1, "train": 6, "test": 2},
        steps=3,
        batch_size=2,
        warmup_steps=0,
    )
    scenes, _ = run_datasets(run)
    ours, plain = (create_model(run.model, num_classes=3, **run.overrides).train() for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    torch.manual_seed(0)  # of dropout
    train(ours, scenes, run, tmp_path / "run.safetensors")

    spared = [p for name, p in plain.named_parameters() if p.ndim <= 1 or "bias_table" in name]
    decayed = [p for p in plain.parameters() if all(p is not other for other in spared)]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": spared, "weight_decay": 0.0}], weight_decay=0.01)
    order = np.random.default_rng([run.seed, 0]).permutation(6)
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    torch.manual_seed(0)
    for step in range(run.steps):
        images, labels = (torch.stack(x) for x in zip(*(scenes[int(i)] for i in order[2 * step :][:2]), strict=True))
        x = (images - mean[:, None, None]) / deviation[:, None, None]
        logits, auxiliary = plain(x, auxiliary=True)
        loss = F.cross_entropy(logits, labels.long(), ignore_index=255)
        loss = loss + 0.4 * F.cross_entropy(auxiliary, labels.long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = run.lr * (1 - step / run.steps)
        optimizer.step()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.usefixtures("data")
def test_record_tables_and_figures_of_volumes(tmp_path: Path) -> None:
    """From two runs' records to the table, the summary as a reader meets it, and every figure."""
    study = studies.VOLUMES_HIPPOCAMPUS
    metrics = {}
    for variant in ("nnformer", "glam_1"):
        run = tiny(study.name, variant, "quick", steps=2)
        model, history, found, arrays, classes = carried_out(run, tmp_path / f"{variant}.safetensors")
        found["dice_by_class"][1] = found["hd95_mm"] = float("nan")  # as where a structure is nowhere
        metrics[variant] = found
        price = cost(model, 16, 16, depth=16)
        write_record(
            open_run_folder(tmp_path, run),
            run,
            metrics=found,
            classes=classes,
            cost=price,
            history=history,
            train_seconds=1.0,
            arrays=arrays,
        )
    runs = run_table(tmp_path, study.name).set_index("variant")
    for variant, found in metrics.items():
        row = runs.loc[variant]
        assert row["dice"] == found["dice"]
        assert np.isnan(row["hd95_mm"])
        assert row["undefined_hd95"] == found["undefined"]["hd95"]
        assert row["dice_anterior"] == found["dice_by_class"][0]
        assert np.isnan(row["dice_posterior"])
        assert [row[name] for name in ("depth", "height", "width")] == [16, 16, 16]
    write_tables(tmp_path, study.name)
    text = tables.summary_markdown(read_table(tmp_path, f"{study.name}_summary"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[0][:4] == ["variant", "Dice", "95 % interval", "against baseline"]
    assert [line[0] for line in lines[2:]] == ["nnFormer", "GLAM-nnFormer, 1 token"]
    assert lines[2][1] == f"{metrics['nnformer']['dice']:.3f}"
    assert lines[3][3] == f"{metrics['glam_1']['dice'] - metrics['nnformer']['dice']:+.3f}"
    assert lines[2][lines[0].index("HD95 (mm)")] == "undefined"
    for figure in (
        figures.score_by_variant(study, tmp_path),
        figures.score_by_class(study, tmp_path, "dice"),
        figures.slices(study, tmp_path),
    ):
        assert figures.save(figure, tmp_path, "figure").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.usefixtures("data", "fresh_accelerator")
@pytest.mark.parametrize("study", VOLUME_STUDIES)
def test_gpu_profile_at_tiny_size(study: str, tmp_path: Path) -> None:
    """Its precision, loaders and augmentation, on the CPU: what a GPU session is going to run has run once."""
    for variant in studies.STUDIES[study].variants:
        run = tiny(study, variant, "gpu", steps=2)
        _, history, metrics, arrays, classes = carried_out(run, tmp_path / f"{variant}.safetensors")
        assert np.isfinite(history[-1]["loss"])
        assert 0 <= metrics["dice"] <= 1
        assert len(metrics["dice_by_class"]) == len(classes) - 1
        assert arrays["predictions"].shape == arrays["labels"].shape

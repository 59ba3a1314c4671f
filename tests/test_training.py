"""Training: bits and seeds, the order of items, parameter groups, losses, validation, compiled blocks."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import python
from safetensors.torch import load_file
from torch import nn

from glamlib import create_model, studies
from glamlib.data.datasets import InMemory
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.data.transforms import normalise
from glamlib.errors import InputError
from glamlib.evaluation.cues import CueAccuracy
from glamlib.evaluation.evaluate import evaluate
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import run_data
from glamlib.training.loop import TrainingView, compile_blocks, parameter_groups, step_batches, train
from glamlib.training.losses import balanced_weights

RUN = RunParameters(
    study="context",
    variant="glam_2",
    seed=3,
    profile="quick",
    model="glam_swin_nano_linear",
    overrides={"depths": [2], "num_heads": [2], "num_global_tokens": 2, "drop_path": 0.2},
    dataset="scenes",
    data={"size": 32, "num_shapes": 1, "train": 12, "test": 4},
    augment={"crop_size": [32, 32]},
    steps=12,
    batch_size=2,
    lr=1e-3,
    warmup_steps=3,
    checkpoint_every=5,
)


def cue_scenes(count: int = 12, seed: int = 3) -> CueScenes:
    return CueScenes(SceneConfig(size=32, num_shapes=1), count, seed)


def trained(run: RunParameters, checkpoint: Path, scenes: InMemory | None = None, **watch: object):
    """Return the model and its history; ``watch`` is how `train` tells its steps, and its validation."""
    torch.manual_seed(run.seed)
    model = create_model(run.model, num_classes=3, **run.overrides)
    history, _ = train(model, scenes or InMemory(cue_scenes(12, run.seed)), run, checkpoint, **watch)
    return model, history


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_without_a_valid_pixel_has_no_loss(accumulate: int, tmp_path: Path) -> None:
    run, void = replace(RUN, steps=2, accumulate=accumulate), InMemory(cue_scenes(4))
    for index in range(4):
        void[index][1].fill_(255)
    model, history = trained(run, tmp_path / "run.safetensors", void)
    assert history[-1]["loss"] == 0
    assert all(parameter.isfinite().all() for parameter in model.parameters())


WITH_WORKERS = """
import multiprocessing, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_training import RUN, InMemory, cue_scenes, replace, trained
multiprocessing.set_start_method(sys.argv[2])
trained(replace(RUN, steps=4, workers=2), Path(sys.argv[1]), InMemory(cue_scenes(2000)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_every_start_method_train_alike(method: str, tmp_path: Path) -> None:
    """Held data of more tensors than a process may open files, and augmentation."""
    checkpoint = tmp_path / "run.safetensors"
    done = python("-c", WITH_WORKERS, checkpoint, method)
    assert done.returncode == 0, done.stderr[-3000:]
    here, _ = trained(replace(RUN, steps=4), tmp_path / "here.safetensors", InMemory(cue_scenes(2000)))
    assert all(torch.equal(load_file(checkpoint)[f"model/{key}"], value) for key, value in here.state_dict().items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_the_machine_has_not_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"device 'cuda': .* allowed here: cpu, auto"):
        trained(replace(RUN, device="cuda"), tmp_path / "run.safetensors")


def test_every_epoch_sees_every_image_once() -> None:
    view = TrainingView(cue_scenes(5), seed=1, transform=None)
    batches = step_batches(replace(RUN, steps=5, batch_size=3), start=0)
    epochs = np.array([view.item(position) for batch in batches for position in batch]).reshape(3, 5)
    assert (np.sort(epochs, axis=1) == np.arange(5)).all()
    assert not (epochs == epochs[0]).all()


def decayed_names(model: nn.Module, decay: str) -> set[str]:
    """Return the names of the parameters that decay, all others being in the group that does not."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.05, decay)
    groups = {group["weight_decay"]: {names[one] for one in group["params"]} for group in groups}
    assert groups[0.0] | groups[0.05] == set(names.values())
    assert not groups[0.0] & groups[0.05]
    return groups[0.05]


def test_only_the_weights_of_linear_and_convolution_layers_decay() -> None:
    model = create_model("glam_swin_nano_upernet", num_classes=3)
    layers = nn.Linear | nn.Conv2d
    expected = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, layers)}
    assert decayed_names(model, "matrices") == expected


def test_released_decay_follows_the_names() -> None:
    model = create_model("glam_swin_nano_upernet", num_classes=3)
    decayed = decayed_names(model, "released")
    block = "encoder.layers.0.blocks.0"
    assert {"encoder.layers.0.global_tokens", f"{block}.attn.qkv.bias", "decoder.bottleneck.bn.weight"} <= decayed
    for name in ("encoder.norms.0.weight", "encoder.patch_embed.norm.bias", f"{block}.norm_mixer.weight"):
        assert name not in decayed
    assert not any("relative_position_bias_table" in name for name in decayed)


def test_learning_rate_rises_linearly_and_falls_linearly_to_zero(tmp_path: Path) -> None:
    run = replace(RUN, steps=40, warmup_steps=10, batch_size=1, checkpoint_every=40, augment={})
    _, history = trained(run, tmp_path / "run.safetensors")
    # rows are at the ends of steps 9, 19, 29, 39 (counted from 0)
    expected = [1e-3 * 9 / 10, 1e-3 * (1 - 19 / 40), 1e-3 * (1 - 29 / 40), 1e-3 * (1 - 39 / 40)]
    assert [row["lr"] for row in history] == pytest.approx(expected, rel=1e-4)


def test_a_run_on_images_is_a_plain_loop(tmp_path: Path) -> None:
    """AdamW, clipping, the schedule, cross-entropy, 0.4 of the auxiliary head's: written out."""
    run = replace(
        studies.find_study("decoders").run("swin_upernet", 0, "quick"),
        data={"size": 32, "num_shapes": 1, "train": 6, "test": 2},
        steps=3,
        batch_size=2,
        warmup_steps=0,
    )
    scenes = run_data(run, "train")
    ours, plain = (create_model(run.model, num_classes=3, **run.overrides).train() for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    train(ours, scenes, run, tmp_path / "run.safetensors")

    no_decay = [p for name, p in plain.named_parameters() if p.ndim <= 1 or "bias_table" in name]
    decayed = [p for p in plain.parameters() if all(p is not other for other in no_decay)]
    groups = [{"params": decayed}, {"params": no_decay, "weight_decay": 0.0}]
    # Torch's other AdamW rounds otherwise, and where a gradient is about 0, Adam makes a step of the rounding.
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    order = np.random.default_rng([run.seed, 0]).permutation(6)
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    for step in range(run.steps):
        torch.manual_seed(int(np.random.SeedSequence([run.seed, step + 1, 0, 2]).generate_state(1)[0]))  # dropout
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


@pytest.mark.slow
def test_compiled_blocks_train_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, and checkpoints know nothing of it. Traced as for a GPU; a C++ compiler would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    run = replace(VALIDATED, steps=4, validate_every=2, overrides=RUN.overrides | {"drop_path": 0.0})
    model, history, _ = validated(run, tmp_path / "plain.safetensors")
    compiled, compiled_history, _ = validated(replace(run, compile=True), tmp_path / "compiled.safetensors")
    for name in ("loss", "val_right_given_found"):
        assert compiled_history[-1][name] == pytest.approx(history[-1][name], abs=1e-3)
    for (name, a), b in zip(model.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3, msg=name)
    plain, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == other.keys()
    assert not any(module._compiled_call_impl for module in compiled.modules())
    compile_blocks(compiled)
    assert all(block._compiled_call_impl for block in compiled.encoder.layers[0].blocks)


VALIDATED = replace(RUN, validate_every=4, data=RUN.data | {"val": 3})


def validated(run: RunParameters, checkpoint: Path, **watch: object):
    """Return the model, the history, and a 1 for each validation that was the best so far."""
    calls: list[int] = []
    watch |= {"validation": cue_scenes(3, 1), "on_best": lambda: calls.append(1)}
    return *trained(run, checkpoint, **watch), calls


def test_validation_changes_no_bit_of_the_training_and_is_the_score_of_that_step(tmp_path: Path) -> None:
    plain, _ = trained(RUN, tmp_path / "plain.safetensors")
    model, history, calls = validated(VALIDATED, tmp_path / "run.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), model.state_dict().values(), strict=True))
    name = "val_right_given_found"
    scores, cues = {row["step"]: row[name] for row in history if name in row}, CueAccuracy(cue_scenes(3, 1))
    assert list(scores) == [4, 8, 12]
    evaluate(model, cue_scenes(3, 1), on_image=cues.update)
    assert scores[12] == np.nan_to_num(cues.metrics()["right_given_found"])
    running = np.maximum.accumulate(list(scores.values()))
    assert len(calls) == len(np.unique(running))
    # every step's loss is in exactly one row
    _, by_ten = trained(RUN, tmp_path / "rows.safetensors")
    total = sum(row["loss"] * (row["step"] - before) for row, before in zip(history, [0, 4, 8, 10], strict=True))
    assert total == pytest.approx(by_ten[0]["loss"] * 10 + by_ten[1]["loss"] * 2)


def test_out_of_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr("glamlib.training.tasks.cross_entropy", full)
    with pytest.raises(InputError, match=r"^2 items .* do not fit into the memory of cpu; use a smaller batch_size"):
        trained(RUN, tmp_path / "run.safetensors")


def unequal() -> InMemory:
    """Four scenes, a quarter void. Class 0 is in all, class 1 in the first alone, on half of what is labelled."""
    scenes = InMemory(cue_scenes(4))
    for index in range(4):
        label = scenes[index][1].zero_()
        label[:8] = 255
        label[8 : 8 if index else 20] = 1
    return scenes


def test_median_frequency_balancing_by_hand() -> None:
    # class 0: 12 + 24 + 24 + 24 rows of 4 * 24 labelled; class 1: 12 of the 24 of the one image that holds it
    frequencies = 84 / 96, 12 / 24
    middle = sum(frequencies) / 2
    weights = balanced_weights(unequal())
    assert weights.tolist() == pytest.approx([middle / frequencies[0], middle / frequencies[1], 1])


def test_balanced_loss_is_that_of_torch_whatever_the_micro_batches(tmp_path: Path) -> None:
    scenes = unequal()
    run = replace(RUN, loss="balanced", steps=1, batch_size=4, augment={}, overrides=RUN.overrides | {"drop_path": 0.0})
    images, labels = (torch.stack(items) for items in zip(*(scenes[i] for i in range(4)), strict=True))
    for accumulate in (1, 4):
        torch.manual_seed(0)
        model = create_model(run.model, num_classes=3, **run.overrides)
        with torch.no_grad():
            logits = model(normalise(images))
        expected = F.cross_entropy(logits, labels.long(), balanced_weights(scenes), ignore_index=255)
        checkpoint = tmp_path / f"{accumulate}.safetensors"
        history, _ = train(model, scenes, replace(run, accumulate=accumulate), checkpoint)
        assert history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)

"""What training does for a GPU, on the CPU: data on the device, compiled blocks, a pause, and the speed it tells."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_study_files import record_of
from test_training import RUN, fresh_accelerator, trained  # noqa: F401  (a fixture)
from torch.utils.data import DataLoader

from glamlib import create_model, studies
from glamlib.cost.count import macs_by_module_fvcore
from glamlib.data.datasets import InMemory, all_items
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.errors import InputError
from glamlib.runs.places import imagenet_file
from glamlib.runs.plan import chosen_studies

# GONE glamlib.study.resident: can_be_resident, resident_batches
from glamlib.runs.run import build_model

# GONE glamlib.study.throughput: throughput
# GONE glamlib.study.throughput: achieved_speed, training_speed
from glamlib.training.loop import Paused, StepBatches, TrainingView, compiled_blocks

CPU = torch.device("cpu")


def scenes(count: int) -> CueScenes:
    return CueScenes(SceneConfig(size=32, num_shapes=1), count, 5)


def test_batches_on_the_device_are_the_loaders() -> None:
    view, parts = TrainingView(InMemory(scenes(10)), 3, None), StepBatches(2, 9, 4, turns=2)
    theirs = list(DataLoader(view, batch_sampler=parts))
    ours = list(resident_batches(view, parts, CPU))
    assert len(ours) == len(theirs) == 14
    for (image, label), (their_image, their_label) in zip(ours, theirs, strict=True):
        assert torch.equal(image, their_image)
        assert torch.equal(label, their_label)


def test_only_data_that_are_held_and_not_augmented_are_resident() -> None:
    held, gpu = InMemory(scenes(2)), torch.device("cuda")
    assert can_be_resident(TrainingView(held, 0, None), gpu)
    assert not can_be_resident(TrainingView(held, 0, None), CPU)
    assert not can_be_resident(TrainingView(held, 0, lambda image, label, random: (image, label)), gpu)
    assert not can_be_resident(TrainingView(scenes(2), 0, None), gpu)


def test_processes_draw_the_same_items_in_order() -> None:
    drawn = scenes(100)
    for (image, label), (theirs, their_label) in zip(all_items(drawn, 90, 2), all_items(drawn, 90), strict=True):
        assert torch.equal(image, theirs)
        assert torch.equal(label, their_label)


@pytest.mark.usefixtures("fresh_accelerator")
def test_paused_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, history = trained(RUN, tmp_path / "whole.safetensors")
    checkpoint = tmp_path / "paused.safetensors"
    for stop in (3, 5, 11):
        with pytest.raises(Paused, match=f"after step {stop} of 12"):
            trained(RUN, checkpoint, lambda step, stop=stop: step == stop)
    resumed, resumed_history = trained(RUN, checkpoint, lambda step: step == 12)  # the last step is no pause
    assert resumed_history == history
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_accelerator")
def test_compiled_blocks_train_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, and checkpoints know nothing of it. Traced as for a GPU; a C++ compiler would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    run = replace(RUN, steps=4, overrides=RUN.overrides | {"drop_path": 0.0})
    model, history = trained(run, tmp_path / "plain.safetensors")
    compiled, compiled_history = trained(replace(run, compile=True), tmp_path / "compiled.safetensors")
    assert compiled_history[-1]["loss"] == pytest.approx(history[-1]["loss"], abs=1e-5)
    for (name, a), b in zip(model.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3, msg=name)
    plain, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == other.keys()


def test_blocks_are_left_as_they_were() -> None:
    model = create_model("glam_swin_nano_linear", num_classes=3)
    block = model.encoder.layers[0].blocks[0]
    with compiled_blocks(model, wanted=True):
        assert "forward" in vars(block)
    assert "forward" not in vars(block)
    with compiled_blocks(model, wanted=False):
        assert "forward" not in vars(block)


def test_achieved_speed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images in half a second; three passes of two operations a multiply-add; a device of 2 TFLOP/s."""
    monkeypatch.setattr(throughput, "matmul_gflops", lambda device, dtype: 2000.0)
    model = create_model("glam_swin_nano_linear", num_classes=3)
    run = replace(RUN, batch_size=10)
    speed = achieved_speed(model, (32, 48), run, 0.5, "cpu")
    macs = macs_by_module_fvcore(model, 32, 48)[""]
    assert speed["images_per_second"] == 20
    assert speed["tflops"] == pytest.approx(20 * 6 * macs / 1e12, rel=1e-6)
    assert speed["share"] == pytest.approx(speed["tflops"] / 2)
    assert training_speed(model, None, run, 0.5) is None  # on a processor, which other runs share
    assert throughput.training_size(InMemory(scenes(1)), replace(run, augment={})) == (32, 32)
    assert throughput.training_size(None, replace(run, augment={"crop_size": [64, 96]})) == (64, 96)


def test_imagenet_weights_are_found_below_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_file: Path, theirs: torch.nn.Module
) -> None:
    """And the study that starts from them waits for them."""
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    (tmp_path / "camvid").mkdir()
    assert imagenet_file("glam_swin_tiny_upernet") is None
    assert "camvid_imagenet" not in {study.name for study in chosen_studies("all", "gpu")}
    with pytest.raises(InputError, match="no ImageNet weights in weights below GLAM_DATA"):
        chosen_studies("camvid_imagenet", "gpu")
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights/swin_tiny_patch4_window7_224.safetensors"
    file.symlink_to(weights_file)
    assert imagenet_file("glam_swin_tiny_upernet") == file
    assert imagenet_file("glam_swin_small_upernet") is None
    assert imagenet_file("glam_swin_nano_upernet") is None
    assert "camvid_imagenet" in {study.name for study in chosen_studies("all", "gpu")}

    class Data:
        classes = ("a", "b")

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(3, 8, 8), torch.zeros(8, 8)

    model = build_model(studies.CAMVID_IMAGENET.run("swin", 0, "gpu"), Data())
    assert torch.equal(model.encoder.patch_embed.proj.weight, theirs.patch_embed.proj.weight)

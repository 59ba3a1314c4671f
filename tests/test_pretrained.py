"""Swin's weights in our encoders: equal to timm's network, and errors that name the file and the first keys."""

import os
import re
from pathlib import Path

import pytest
import timm
import torch
from conftest import refused
from safetensors.torch import save_file
from torch import nn

from glamlib import create_model, studies
from glamlib.data.scenes import CueScenes, SceneConfig
from glamlib.runs.places import imagenet_file
from glamlib.runs.reproduce import chosen_studies
from glamlib.runs.run import build_model


def load(source: object, name: str = "swin_nano_linear", **overrides: object) -> nn.Module:
    torch.manual_seed(1)
    return create_model(name, num_classes=2, pretrained=source, **overrides)


@pytest.mark.parametrize("content", [b"no weights at all" * 9, b""], ids=["garbage", "empty"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    for source in (path, str(path)):
        with refused(f"{path}: refused, it is damaged or holds something other than weights"):
            load(source)
    for source in (tmp_path / "nothing.safetensors", tmp_path):
        with refused(f"no weights file {source}"):
            load(source)


class Code:
    """What pickles as a call: loading it without care would make a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)

    def __repr__(self) -> str:  # parallel tests need names without an address
        return "code"


@pytest.mark.parametrize("content", [Code(), [1, 2], torch.zeros(3), 7, [1]], ids=repr)
def test_what_is_no_state_dict_is_refused_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": content}, "weights.pth")
    with refused("weights.pth: refused, it is damaged or holds something other than weights"):
        load("weights.pth")
    assert not Path("executed").exists()


def test_weights_that_do_not_fit_name_the_file_and_the_first_keys(tmp_path: Path, weights_file: Path) -> None:
    other = timm.models.swin_transformer.SwinTransformer(embed_dim=24, depths=(2, 2), num_heads=(3, 6)).state_dict()
    save_file(other, path := tmp_path / "small.safetensors")
    with refused(path, "does not fit swin_nano;", "layers.0.blocks.0.attn.proj.bias", "missing"):
        load(path)
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "wrapped.pth")
    with refused("wrapped.pth", "does not fit", "patch_embed.proj.weight"):
        load(tmp_path / "wrapped.pth")
    for overrides, needle in ({"window_size": 4}, "relative_position_bias_table"), ({"patch_size": 2}, "patch_embed"):
        with refused(weights_file, needle):
            load(weights_file, "swin_tiny_linear", **overrides)


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("no ImageNet weights for swin_nano;", "swin_tiny, swin_small"):
        load(True)

    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError("no route to host\nafter 5 tries")

    monkeypatch.setattr(timm, "create_model", fail)
    overrides = {"embed_dim": 24, "depths": [1], "num_heads": [1]}  # quick to make; it fails before they matter
    with refused("timm/swin_tiny_patch4_window7_224.ms_in1k", "OSError", "pretrained=PATH"):
        load(True, "swin_tiny_linear", **overrides)


@pytest.mark.parametrize("form", ["safetensors", "torch", "Microsoft's"])
def test_swins_part_of_glam_equals_timms(theirs: nn.Module, weights_file: Path, tmp_path: Path, form: str) -> None:
    """Microsoft's files have the state under ``model``, and the merging of stage i where timm has it in stage i + 1."""
    path = weights_file
    if form != "safetensors":
        path, state = tmp_path / "swin_tiny.pth", theirs.state_dict()
        pattern, before = r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample"
        moved = {re.sub(pattern, before, key): value for key, value in state.items()}
        torch.save(state if form == "torch" else {"model": moved, "epoch": 1}, path)
    models = (load(source, "glam_swin_tiny_linear", num_global_tokens=2) for source in (False, path))
    untouched, ours = (model.state_dict() for model in models)
    if path != weights_file:
        path.unlink()
    state = {f"encoder.{key}": value for key, value in theirs.state_dict().items()}
    for key, value in ours.items():
        # tokens, exchange, output norms and decoder start as they would without the file
        expected = state if key in state else untouched
        assert torch.equal(value, expected[key]), key
    unused = {key for key in state if key not in ours}
    assert all("head" in k or "encoder.norm." in k or "index" in k or "attn_mask" in k for k in unused), unused
    assert sum(state[key].numel() for key in ours if key in state) == 27_517_818  # Swin-T less its classifier


def test_imagenet_weights_are_found_below_the_data(tmp_path, monkeypatch, weights_file, theirs):
    """And the study that starts from them waits for them."""
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    (tmp_path / "camvid").mkdir()
    assert imagenet_file("glam_swin_tiny_upernet") is None
    assert "camvid_imagenet" not in {study.name for study in chosen_studies("all", "paper")}
    with refused("data are not below GLAM_DATA=", "ImageNet weights in weights/"):
        chosen_studies("camvid_imagenet", "paper")
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights/swin_tiny_patch4_window7_224.safetensors"
    file.symlink_to(weights_file)
    assert imagenet_file("glam_swin_tiny_upernet") == file
    assert imagenet_file("glam_swin_small_upernet") is None
    assert imagenet_file("glam_swin_nano_upernet") is None
    assert imagenet_file("vit_tiny_upernet") is None  # a neighbour, whatever its size is called
    assert "camvid_imagenet" in {study.name for study in chosen_studies("all", "paper")}
    scenes = CueScenes(SceneConfig(size=32, num_shapes=1), 1, 0)
    model = build_model(studies.find_study("camvid_imagenet").run("swin", 0, "paper"), scenes)
    assert torch.equal(model.encoder.patch_embed.proj.weight, theirs.patch_embed.proj.weight)

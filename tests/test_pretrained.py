"""Swin's weights in our encoders: equal to timm's network, and errors that name the file and the first keys."""

import os
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from glamlib import InputError, create_model, studies
from glamlib.runs.places import imagenet_file
from glamlib.runs.reproduce import chosen_studies
from glamlib.runs.run import build_model

TIMM_NAME = "swin_tiny_patch4_window7_224"


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Tensor]:
    """Weights that fit no Swin of ours: a much smaller one."""
    model = timm.models.swin_transformer.SwinTransformer(embed_dim=24, depths=(2, 2), num_heads=(3, 6))
    return model.state_dict()


def refused(source: object, *needles: str, name: str = "swin_nano_linear", **arguments: object) -> None:
    """Expect an InputError of one line in which every needle occurs."""
    with pytest.raises(InputError) as caught:
        create_model(name, num_classes=2, pretrained=source, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    for needle in needles:
        assert needle in message, message


@pytest.mark.parametrize("content", [b"no weights at all" * 9, b""], ids=["garbage", "empty"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(path, f"{path}: refused, it is damaged or holds something other than weights")
    refused(str(path), str(path))
    refused(tmp_path / "nothing.safetensors", f"no weights file {tmp_path / 'nothing.safetensors'}")
    refused(tmp_path, f"no weights file {tmp_path}")


class Code:
    """What pickles as a call: loading it without care would make a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)

    def __repr__(self) -> str:  # parallel tests need names without an address
        return "code"


@pytest.mark.parametrize("content", [Code(), [1, 2], torch.zeros(3), 7, [1]], ids=repr)
def test_what_is_no_state_dict_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": content}, "weights.pth")
    refused("weights.pth", "weights.pth: refused, it is damaged or holds something other than weights")
    assert not Path("executed").exists()


def test_another_models_weights_name_the_file_and_the_first_keys(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = tmp_path / "small.safetensors"
    save_file(small, path)
    refused(path, str(path), "does not fit swin_nano;", "layers.0.blocks.0.attn.proj.bias", "missing")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "wrapped.pth")
    refused(tmp_path / "wrapped.pth", "wrapped.pth", "does not fit", "patch_embed.proj.weight")


def test_there_are_no_published_weights_for_nano() -> None:
    refused(True, "no ImageNet weights for swin_nano;", "swin_tiny, swin_small")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError("no route to host\nafter 5 tries")

    monkeypatch.setattr(timm, "create_model", fail)
    overrides = {"embed_dim": 24, "depths": [1], "num_heads": [1]}  # quick to make; it fails before they matter
    refused(True, f"timm/{TIMM_NAME}.ms_in1k", "OSError", "pretrained=PATH", name="swin_tiny_linear", **overrides)


@pytest.mark.parametrize("form", ["safetensors", "torch", "torch under 'model'"])
def test_swins_part_of_glam_equals_timms(theirs: nn.Module, weights_file: Path, tmp_path: Path, form: str) -> None:
    path = weights_file
    if form != "safetensors":
        path = tmp_path / "swin_tiny.pth"
        state = theirs.state_dict()
        torch.save({"model": state, "epoch": 1} if "model" in form else state, path)
    torch.manual_seed(1)
    untouched = create_model("glam_swin_tiny_linear", num_classes=2, num_global_tokens=2).state_dict()
    torch.manual_seed(1)
    ours = create_model("glam_swin_tiny_linear", num_classes=2, num_global_tokens=2, pretrained=path).state_dict()
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


@pytest.mark.parametrize(
    ("overrides", "needle"),
    [({"window_size": 4}, "relative_position_bias_table"), ({"patch_size": 2}, "patch_embed.proj.weight")],
    ids=str,
)
def test_an_override_that_the_weights_do_not_fit_is_named(weights_file: Path, overrides: dict, needle: str) -> None:
    refused(weights_file, str(weights_file), needle, name="swin_tiny_linear", **overrides)


@pytest.mark.slow
def test_microsofts_layout_is_the_same_network(theirs: nn.Module, tmp_path: Path) -> None:
    """Its files keep the state under ``model`` and the merging of stage i where timm has it in stage i + 1."""
    state = {
        re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key): value
        for key, value in theirs.state_dict().items()
    }
    path = tmp_path / "swin_tiny_patch4_window7_224.pth"
    torch.save({"model": state}, path)
    model = create_model("swin_tiny_linear", num_classes=2, pretrained=path)
    path.unlink()
    own = model.encoder.state_dict()
    for key, value in theirs.state_dict().items():
        if key in own:
            assert torch.equal(own[key], value), key
    assert torch.equal(own["layers.1.downsample.reduction.weight"], state["layers.0.downsample.reduction.weight"])


def test_imagenet_weights_are_found_below_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_file: Path, theirs: nn.Module
) -> None:
    """And the study that starts from them waits for them."""
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    (tmp_path / "camvid").mkdir()
    assert imagenet_file("glam_swin_tiny_upernet") is None
    assert "camvid_imagenet" not in {study.name for study in chosen_studies("all", "paper")}
    with pytest.raises(InputError, match=r"data are not below GLAM_DATA=.*ImageNet weights in weights/"):
        chosen_studies("camvid_imagenet", "paper")
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights/swin_tiny_patch4_window7_224.safetensors"
    file.symlink_to(weights_file)
    assert imagenet_file("glam_swin_tiny_upernet") == file
    assert imagenet_file("glam_swin_small_upernet") is None
    assert imagenet_file("glam_swin_nano_upernet") is None
    assert "camvid_imagenet" in {study.name for study in chosen_studies("all", "paper")}

    class Data:
        classes = ("a", "b")

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(3, 8, 8), torch.zeros(8, 8)

    model = build_model(studies.CAMVID_IMAGENET.run("swin", 0, "paper"), Data())
    assert torch.equal(model.encoder.patch_embed.proj.weight, theirs.patch_embed.proj.weight)

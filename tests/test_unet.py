"""The UNet decoder: its parameters, and a pretrained start that mirrors the encoder's."""

import csv
import re
from pathlib import Path

import pytest
import torch
from conftest import REFERENCE, parameters_of
from torch import nn

from glamlib import create_model


@pytest.mark.parametrize("tokens", [0, 1, 5, 10])
@pytest.mark.parametrize(("size", "dim"), [("tiny", 96), ("small", 96), ("base", 128)])
def test_as_many_parameters_as_the_released_networks(size: str, dim: int, tokens: int) -> None:
    """Component by component; NLU without what the released code builds and never runs (section 5, point 19)."""
    file = REFERENCE / "parameters.csv"
    if not file.is_file():
        pytest.skip("the released code's reference counts are not beside this clone")
    rows = {row["model"]: row for row in csv.DictReader(file.read_text().splitlines()) if row["classes"] == "150"}
    # proj_shortcut and layers_patch_expand of the coarse maps
    unused = sum(d * d // 2 + d // 2 + 2 * d * d + d for d in (2 * dim, 4 * dim, 8 * dim))
    for nlu in (False, True) if tokens else (False,):
        glam = f"-g{tokens}" if tokens else ""
        row = rows[f"{'GLAM-' if tokens else ''}Swin-UNet-{size[0].upper()}{glam}{'+NLU' if nlu else ''}"]
        name = f"{'glam_' if tokens else ''}swin_{size}_unet{'_nlu' if nlu else ''}"
        options = {"num_global_tokens": tokens} if tokens else {}
        with torch.device("meta"):
            model = create_model(name, num_classes=150, behaviour="released", **options)
        assert parameters_of(model) == int(row["total"]) - (unused if nlu else 0)
        counts = {key: parameter.numel() for key, parameter in model.named_parameters()}
        found = {
            "position_tables": total(counts, r"\.pe$"),
            "global_tokens": total(counts, r"\.global_tokens$"),
            "gmsa": total(counts, r"\.mixer\."),
            "nlu": total(counts, r"decoder\.ups\.") + unused if nlu else 0,
            "encoder_rest": total(counts, r"^encoder\.(?!.*(\.pe$|\.global_tokens$|\.mixer\.))"),
        }
        assert found == {key: int(row[key]) for key in found}


def total(counts: dict[str, int], pattern: str) -> int:
    return sum(number for key, number in counts.items() if re.search(pattern, key))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_tiny_unet", "glam_swin_tiny_unet_nlu"])
def test_pretrained_weights_are_mirrored(theirs: nn.Module, weights_file: Path, name: str) -> None:
    """Every block of Swin's on the way up starts as on the way down; tokens, exchange, the rest as without a file."""
    models = []
    for pretrained in (weights_file, False):
        torch.manual_seed(0)
        models.append(create_model(name, num_classes=3, pretrained=pretrained))
    model, untouched, state = models[0], models[1].state_dict(), theirs.state_dict()
    for stage in model.decoder.layers_up:
        for key, value in stage.blocks.state_dict().items():
            swin = f"layers.{stage.level}.blocks.{key}"
            if "mixer" not in key:
                assert torch.equal(value, state[swin]), key
                assert torch.equal(value, model.encoder.state_dict()[swin])
    for key, value in model.state_dict().items():
        ours = not re.search(r"\.blocks\.", key) or "mixer" in key
        if key.startswith("decoder.") and ours:
            assert torch.equal(value, untouched[key]), key
    down, up = model.encoder.layers[0].blocks[0].mlp.fc1, model.decoder.layers_up[-1].blocks[0].mlp.fc1
    assert down.weight.data_ptr() != up.weight.data_ptr()  # a copy, free to learn something else

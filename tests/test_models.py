"""The table of named models and its errors, and parts against timm's and the released code's."""

import dataclasses
import re

import pytest
import timm
import torch
from conftest import reference, refused
from torch import nn

from glamlib import InputError, create_model, list_models
from glamlib.layers.mixers import MIXERS
from glamlib.models.upernet import LinearDecoder, UPerNetDecoder
from glamlib.zoo import MODELS


def test_list_models_takes_patterns() -> None:
    sizes, decoders = ("nano", "tiny", "small", "base"), ("linear", "unet", "unet_nlu", "upernet")
    assert list_models("swin_*") == sorted(f"swin_{size}_{decoder}" for size in sizes for decoder in decoders)
    assert list_models("*nnformer*") == ["glam_nnformer", "glam_nnformer_nano", "nnformer", "nnformer_nano"]
    assert list_models() == sorted(list_models())
    assert list_models("glam_swin_tiny_*") == [n for n in list_models() if n.startswith("glam_swin_tiny_")] != []
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", ["glam_swin_huge_upernet", None, 5, ["swin_nano_unet"], {}], ids=str)
def test_an_unknown_model_lists_all(name: object) -> None:
    with refused(f"unknown model {name!r}", *list_models()):
        create_model(name, num_classes=2)


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("glam_swin_nano_linear", "num_tokens"),
        ("glam_swin_nano_linear", "decoder"),  # the name says it
        ("swin_nano_linear", "mixer"),
        ("glam_nnformer_nano", "decoder_channels"),
        ("nnformer_nano", "num_global_tokens"),
        ("vil_nano_upernet", "backbone"),
    ],
)
def test_an_unknown_override_lists_the_allowed_ones(name: str, override: str) -> None:
    hidden = {"decoder", "backbone"} | (
        set() if name.startswith("glam_") else {"num_global_tokens", "mixer", "mask_tokens"}
    )
    allowed = [field.name for field in dataclasses.fields(MODELS[name]) if field.name not in hidden]
    with refused(f"unknown override for {name}: {override!r}; allowed: {', '.join(allowed)}"):
        create_model(name, num_classes=2, **{override: 2})


VOLUME, PVT = {"name": "glam_nnformer_nano"}, {"name": "pvt_nano_upernet"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"num_global_tokens": True}, "num_global_tokens=True: must be a whole number at least 0 or a list"),
        ({"num_global_tokens": [2, 2, 2, "2"]}, "num_global_tokens=[2, 2, 2, '2']: must be a whole number at least 0"),
        ({"num_global_tokens": [2, 2]}, "num_global_tokens=[2, 2]: must have one number for each of the 4 stages"),
        ({"mixer": "gmas"}, f"mixer='gmas': must be one of {', '.join(MIXERS)}"),
        ({"mixer": "linear", "behaviour": "released"}, "mixer='linear', behaviour='released': this behaviour takes"),
        ({"window_size": (7, 7)}, "window_size=(7, 7): must be a whole number at least 1"),
        ({"depths": []}, "depths=[]: must be a list"),
        ({"depths": [2, 2]}, "num_heads=[2, 4, 8, 16]: must have one number for each of the 2 stages"),
        ({"num_heads": [2, 4, 5, 16]}, "num_heads=[2, 4, 5, 16]: 5 does not divide the 128 channels of stage 2"),
        ({"drop_path": 1.0}, "drop_path=1.0: must be a number from 0 to 0.99"),
        ({"num_classes": True}, "num_classes=True: must be a whole number at least 1"),
        ({"pretrained": None}, "pretrained=None: must be True, False or the path of a weights file"),
        (VOLUME | {"pretrained": True}, "pretrained=True: there are no pretrained weights for glam_nnformer_nano"),
        (VOLUME | {"window_size": [4, 4]}, "window_size=[4, 4]: must have one number for each of the 3 stages"),
        (VOLUME | {"patch_size": 3}, "patch_size=3: must be one of 1, 2, 4 or a list"),
        (VOLUME | {"patch_size": [2, 4]}, "patch_size=[2, 4]: must be one of 1, 2, 4 or a list"),
        (VOLUME | {"embed_dim": 15, "num_heads": [1, 1, 1]}, "embed_dim=15: must be even"),
        (PVT | {"embed_dims": [32, 64]}, "embed_dims=[32, 64]: must be 4 for pvt (stage 0, stage 1, stage 2, stage 3)"),
        (PVT | {"num_heads": [1, 1, 3, 1]}, "num_heads=[1, 1, 3, 1]: 3 does not divide the 128 channels of stage 2"),
        ({"name": "twins_svt_nano_upernet", "window_size": 1}, "window_size=1: must be at least 2 for twins_svt"),
        ({"name": "vit_nano_upernet", "embed_dims": [2], "num_heads": [1]}, "embed_dims=[2]: must be a list (a whole"),
    ],
    ids=str,
)
def test_bad_values_are_errors_that_say_what_is_allowed(override: dict, message: str) -> None:
    with refused(message):
        create_model(**{"name": "glam_swin_nano_linear", "num_classes": 2} | override)


def test_a_training_batch_of_one_under_upernet_is_a_clear_error() -> None:
    model = create_model("swin_nano_upernet", num_classes=2).train()
    with pytest.raises(InputError, match="a batch of 1: UPerNet's batch norm needs at least 2 images"):
        model(torch.zeros(1, 3, 64, 64))


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    with torch.device("meta"):
        encoder = create_model("swin_tiny_linear", num_classes=2).encoder
        volumes = create_model("nnformer", num_classes=2, in_channels=1)
        unet = create_model("swin_tiny_unet", num_classes=2)
    for stages, last, count in (
        (encoder.layers, 0.3, 12),
        (volumes.encoder.layers, 0.2, 8),
        (volumes.decoder.layers_up[::-1], 0.2, 6),  # from coarse to fine
    ):
        rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in stages for block in stage.blocks]
        assert rates == pytest.approx([last * i / (count - 1) for i in range(count)])
    for stage in unet.decoder.layers_up:  # as on the way down
        assert str(stage.blocks) == str(unet.encoder.layers[stage.level].blocks)


def test_weight_init() -> None:
    torch.manual_seed(0)
    for init, deviation in (("swin", 0.02), ("xavier", (2 / (256 + 1024)) ** 0.5)):  # Glorot's variance: 2 / (in + out)
        model = create_model("swin_nano_linear", num_classes=2, weight_init=init)
        layer = model.encoder.layers[3].blocks[0].mlp.fc1
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.02)
        assert not layer.bias.any()


@torch.no_grad()
def test_upernet_equals_the_released_head() -> None:
    tensors, arguments = reference("uper_head")
    decoder = UPerNetDecoder(
        tuple(arguments["in_channels"]), arguments["channels"], arguments["num_classes"], factor=None
    )
    decoder.eval().load_state_dict(
        {k.removeprefix("weight/"): v for k, v in tensors.items() if k.startswith("weight/")}
    )
    logits = decoder([tensors[f"input/0.{level}"] for level in range(4)])
    torch.testing.assert_close(logits, tensors["output/0"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 8), (57, 10), (50, 13)], ids=str)
@pytest.mark.parametrize("decoder", [LinearDecoder, UPerNetDecoder])
@torch.no_grad()
def test_what_a_coarse_level_shows_keeps_its_place(decoder: type, size: tuple[int, int]) -> None:
    """Levels that show their own row, enlarged and summed, still show it, also where merging padded an odd map."""
    made = decoder((1,) * 4, 1) if decoder is LinearDecoder else decoder((1,) * 4, 1, 1)
    for conv in (layer for layer in made.modules() if isinstance(layer, nn.Conv2d)):
        nn.init.zeros_(conv.weight)[..., conv.kernel_size[0] // 2, conv.kernel_size[0] // 2] = 1
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    if decoder is UPerNetDecoder:
        made.bottleneck.conv.weight[:, 1:] = 0  # no pooled maps
    heights, widths = ([-(-side // 2**level) for level in range(4)] for side in size)
    rows = [(torch.arange(h) + 0.5) * 2**level for level, h in enumerate(heights)]
    levels = [row[None, None, :, None].expand(1, 1, -1, w) for row, w in zip(rows, widths, strict=True)]
    times = 4 if decoder is LinearDecoder else 1 + 2 + 3 + 4  # in a feature pyramid a level is in all finer ones
    inside = slice(8, size[0] - 8)  # beyond the outer centres of the coarsest rows, interpolation is constant
    torch.testing.assert_close(made.eval()(levels)[0, 0, inside], times * levels[0][0, 0, inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_swin_has_as_many_parameters_as_timms(size: str) -> None:
    """All but timm's classifier and its norm, and all but our four norms of the pyramid."""
    with torch.device("meta"):
        theirs = timm.create_model(f"swin_{size}_patch4_window7_224")
        ours = create_model(f"swin_{size}_upernet", num_classes=150).encoder
    published = {"tiny": 28_288_354, "small": 49_606_258, "base": 87_768_224}
    assert sum(p.numel() for p in theirs.parameters()) == published[size]
    without_head = [p for n, p in theirs.named_parameters() if not re.match(r"(head|norm)\.", n)]
    without_norms = [p for n, p in ours.named_parameters() if not n.startswith("norms.")]
    assert sum(p.numel() for p in without_norms) == sum(p.numel() for p in without_head)

"""The named models at any size, the errors of their table, and parts against timm's and the released code's."""

import dataclasses
import re

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import reference
from torch import Tensor, nn

from glamlib import InputError, create_model, list_models
from glamlib.models.config import ModelConfig
from glamlib.models.encoder import Encoder
from glamlib.models.upernet import UPerNetDecoder
from glamlib.zoo import MODELS, model_config

SWIN = list_models("*swin_nano_*")
NANO = SWIN + [name for name in list_models("*_nano_upernet") if name not in SWIN]  # the backbones of others, too
SIZES = [(70, 90), (33, 65), (5, 9), (1, 1)]


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def refused(*needles: str, **arguments: object) -> None:
    """Expect create_model to raise an InputError of one line in which every needle occurs."""
    arguments = {"name": "glam_swin_nano_linear", "num_classes": 2} | arguments
    with pytest.raises(InputError) as caught:
        create_model(arguments.pop("name"), **arguments)
    message = str(caught.value)
    assert "\n" not in message
    for needle in needles:
        assert needle in message, message


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NANO)
def test_any_size_forward_and_backward(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3)
    x = image(2, 3, *size)
    logits, auxiliary = model.train()(x, auxiliary=True)
    assert (auxiliary is not None) == name.endswith("_upernet")
    truth = torch.zeros(2, *size, dtype=torch.long)
    for scores in (logits, auxiliary) if auxiliary is not None else (logits,):
        assert scores.shape == (2, 3, *size)
        assert scores.isfinite().all()
        F.cross_entropy(scores, truth).backward(retain_graph=True)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is unused"
        assert parameter.grad.isfinite().all(), parameter_name
        if size == (70, 90):  # below, a window may hold one patch and then has nothing to compare
            assert parameter.grad.any(), f"{parameter_name} has no effect"


@pytest.mark.parametrize("name", NANO)
@torch.no_grad()
def test_evaluation_is_deterministic_and_images_do_not_meet(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    x = image(3, 3, 61, 75)
    together = model(x)
    assert torch.equal(together, model(x))
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(x[order]), together[order], rtol=1e-4, atol=1e-5)
    for i in range(3):
        torch.testing.assert_close(model(x[i : i + 1]), together[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SWIN)
@torch.no_grad()
def test_features_are_a_pyramid_from_high_to_low(name: str) -> None:
    model = create_model(name, num_classes=3).eval()
    shapes = [tuple(feature.shape) for feature in model.forward_features(image(2, 3, 61, 75))]
    assert shapes == [(2, 32, 16, 19), (2, 64, 8, 10), (2, 128, 4, 5), (2, 256, 2, 3)]


@pytest.mark.parametrize("name", SWIN)
@torch.no_grad()
def test_a_size_that_is_no_multiple_of_a_patch_equals_the_padded_image(name: str) -> None:
    """The logits keep their place: they are those of the zero-padded image, cut, not squeezed."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    x = image(1, 3, 61, 75)
    torch.testing.assert_close(model(x), model(F.pad(x, (0, 1, 0, 3)))[:, :, :61, :75], rtol=1e-5, atol=1e-5)


def test_list_models_takes_patterns() -> None:
    sizes, decoders = ("nano", "tiny", "small", "base"), ("linear", "upernet")
    expected = sorted(f"{f}_{s}_{d}" for f in ("swin", "glam_swin") for s in sizes for d in decoders)
    assert set(expected) <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("glam_swin_tiny_*") == [n for n in list_models() if n.startswith("glam_swin_tiny_")] != []
    assert list_models("swin_small_upernet") == ["swin_small_upernet"]
    assert list_models("nothing*") == []


def test_unknown_model_lists_all() -> None:
    refused("unknown model 'glam_swin_huge_upernet'", *list_models(), name="glam_swin_huge_upernet")


@pytest.mark.parametrize("name", [None, 5, ["swin_nano_unet"], {}], ids=str)
def test_a_name_that_is_no_text_lists_all(name: object) -> None:
    refused(f"unknown model {name!r}", "swin_nano_unet", name=name)


def test_unknown_override_lists_the_allowed_ones() -> None:
    refused(
        "'num_tokens'", "glam_swin_nano_linear", "num_global_tokens", "mixer", "window_size", "depths", num_tokens=3
    )
    refused("'decoder'", decoder="linear")  # the name says it


@pytest.mark.parametrize("override", [{"num_global_tokens": 2}, {"mixer": "none"}])
def test_swin_takes_no_tokens(override: dict) -> None:
    with pytest.raises(InputError) as caught:
        create_model("swin_nano_linear", num_classes=2, **override)
    unknown, allowed = str(caught.value).split("allowed: ")
    assert next(iter(override)) in unknown
    assert allowed.split(", ") == [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.name not in ("decoder", "num_global_tokens", "mixer")
    ]


@pytest.mark.parametrize(
    ("override", "needles"),
    [
        ({"num_global_tokens": "10"}, ("num_global_tokens='10'", "must be a whole number")),
        ({"num_global_tokens": True}, ("num_global_tokens=True", "must be a whole number")),
        ({"num_global_tokens": 2.0}, ("num_global_tokens=2.0", "must be a whole number")),
        ({"num_global_tokens": -1}, ("num_global_tokens=-1", "at least 0")),
        ({"mixer": "gmas"}, ("mixer='gmas'", "gmsa", "none")),
        ({"mixer": None}, ("mixer=None", "must be one of gmsa")),
        ({"window_size": 0}, ("window_size=0", "at least 1")),
        ({"window_size": (7, 7)}, ("window_size=(7, 7)", "must be a whole number")),
        ({"embed_dim": 0}, ("embed_dim=0", "at least 1")),
        ({"depths": 2}, ("depths=2", "must be a list")),
        ({"depths": []}, ("depths=[]", "must be a list")),
        ({"depths": [2, "2", 2, 2]}, ("depths=", "must be a list")),
        ({"depths": [2, 2]}, ("depths=[2, 2]", "num_heads=[2, 4, 8, 16]", "as many")),
        ({"depths": [2, 0, 2, 2]}, ("depths=[2, 0, 2, 2]", "at least 1")),
        ({"num_heads": [2, 4, 5, 16]}, ("num_heads=[2, 4, 5, 16]", "5 does not divide", "128 channels of stage 2")),
        ({"drop_path": "0.1"}, ("drop_path='0.1'", "must be a number")),
        ({"drop_path": 1.0}, ("drop_path=1.0", "from 0 to 0.99")),
        ({"drop_path": float("nan")}, ("drop_path=nan", "from 0 to 0.99")),
        ({"weight_init": "he"}, ("weight_init='he'", "swin", "xavier")),
        ({"num_classes": 0}, ("num_classes=0", "at least 1")),
        ({"num_classes": True}, ("num_classes=True", "integer")),
        ({"num_classes": "3"}, ("num_classes='3'", "integer")),
        ({"in_channels": 0}, ("in_channels=0", "at least 1")),
    ],
    ids=str,
)
def test_bad_values_are_errors_that_say_what_is_allowed(override: dict, needles: tuple[str, ...]) -> None:
    refused(*needles, **override)


def test_a_training_batch_of_one_under_upernet_is_a_clear_error() -> None:
    model = create_model("swin_nano_upernet", num_classes=2).train()
    with pytest.raises(InputError, match="a batch of 1: UPerNet's batch norm needs at least 2 images"):
        model(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_mlp_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(InputError, match=r"mlp_ratio=.*: must be a number at least 0.01"):
        create_model("swin_nano_linear", num_classes=2, mlp_ratio=ratio)


def test_config_is_frozen_and_overrides_leave_the_table_alone() -> None:
    before = dict(MODELS)
    config = model_config("glam_swin_nano_linear", depths=[1, 3], num_heads=[2, 2], num_global_tokens=3, drop_path=0)
    assert (config.depths, config.num_global_tokens, config.drop_path) == ((1, 3), 3, 0.0)
    assert type(config.drop_path) is float
    assert before == MODELS
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.window_size = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        create_model("swin_nano_linear", num_classes=2).config.window_size = 3


def test_overrides_and_channels_shape_the_model() -> None:
    model = create_model(
        "glam_swin_nano_upernet",
        num_classes=5,
        in_channels=4,
        embed_dim=24,
        depths=[1, 2],
        num_heads=[2, 3],
        num_global_tokens=3,
        window_size=3,
        decoder_channels=8,
    ).eval()
    assert [tuple(layer.global_tokens.shape) for layer in model.encoder.layers] == [(3, 24), (3, 48)]
    assert [[block.mixer is not None for block in layer.blocks] for layer in model.encoder.layers] == [
        [False],
        [True, False],
    ]
    assert model(image(1, 4, 20, 31)).shape == (1, 5, 20, 31)


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    with torch.device("meta"):
        encoder = create_model("swin_tiny_linear", num_classes=2).encoder
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for layer in encoder.layers for block in layer.blocks]
    assert rates == pytest.approx([0.3 * i / 11 for i in range(12)])


def test_weight_init() -> None:
    torch.manual_seed(0)
    for init, deviation in (("swin", 0.02), ("xavier", (2 / (256 + 1024)) ** 0.5)):  # Glorot's variance: 2 / (in + out)
        model = create_model("swin_nano_linear", num_classes=2, weight_init=init)
        layer = model.encoder.layers[3].blocks[0].mlp.fc1
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize("size", [(9, 12, 7), (8, 8, 8), (1, 1, 1)])
def test_encoder_of_volumes_takes_any_size(size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    encoder = Encoder(
        in_channels=2,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=2,
        patch_size=2,
        num_global_tokens=2,
        ndim=3,
    )
    features = encoder(image(2, 2, *size))
    half = [-(-s // 2) for s in size]
    assert features[0].shape == (2, 12, *half)
    assert features[1].shape == (2, 24, *(-(-s // 2) for s in half))
    sum(feature.square().sum() for feature in features).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, f"{name} is unused"
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_a_volume_of_one_slice_is_an_image() -> None:
    """A stage in 3D, fed one slice, equals the stage in 2D with the middle of its biases, the first of its patch."""
    torch.manual_seed(0)
    shape = {"embed_dim": 12, "depths": (3,), "num_heads": (2,), "window_size": 3, "patch_size": 2}
    shape |= {"num_global_tokens": 2, "mixer": "none"}  # G-MSA's position code shares its channels out otherwise
    volumes, images = Encoder(ndim=3, **shape).eval(), Encoder(ndim=2, **shape).eval()
    for parameter in volumes.parameters():
        nn.init.normal_(parameter, std=0.3)
    weights = volumes.state_dict()
    for key, value in weights.items():
        if key.endswith("relative_position_bias_table"):
            weights[key] = value.view(5, 25, 2)[2]
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"][:, :, 0]
    images.load_state_dict(weights)
    x = image(2, 3, 15, 22)
    torch.testing.assert_close(volumes(x[:, :, None])[0][:, :, 0], images(x)[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_upernet_equals_the_released_head() -> None:
    tensors, arguments = reference("uper_head")
    decoder = UPerNetDecoder(tuple(arguments["in_channels"]), arguments["channels"], arguments["num_classes"]).eval()
    decoder.load_state_dict({k.removeprefix("weight/"): v for k, v in tensors.items() if k.startswith("weight/")})
    logits = decoder([tensors[f"input/0.{level}"] for level in range(4)])
    torch.testing.assert_close(logits, tensors["output/0"], rtol=1e-4, atol=1e-4)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models("*_tiny_*"))
@torch.no_grad()
def test_tiny_models_run(name: str) -> None:
    torch.manual_seed(0)
    logits = create_model(name, num_classes=4).eval()(image(1, 3, 64, 96))
    assert logits.shape == (1, 4, 64, 96)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NANO)
@torch.no_grad()
def test_exported_program_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    x = image(1, 3, 61, 75)
    expected = model(x)
    exported = torch.export.export(model, (image(1, 3, 61, 75),)).module()
    torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_export_before_the_first_call_leaves_the_model_usable() -> None:
    """The window is of no other test, so that nothing is kept of it yet, and what is kept hurts no other test."""
    torch.manual_seed(0)
    model = create_model("glam_swin_nano_linear", num_classes=3, window_size=6, embed_dim=40, num_heads=[1] * 4).eval()
    x = image(1, 3, 61, 75)
    exported = torch.export.export(model, (x,)).module()
    logits = model(x)
    assert type(logits) is Tensor
    torch.testing.assert_close(exported(x), logits, rtol=1e-5, atol=1e-5)

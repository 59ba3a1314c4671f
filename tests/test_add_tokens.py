"""Global tokens in timm's models: no effect at first, GLAM's block with open gates, and still a timm model."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import image
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.twins import Twins
from torch import nn

from glamlib import InputError, ModelConfig, add_global_tokens
from glamlib.models.encoder import Stage

ADDED = ("global_tokens", "gate", "mixer", "norm_mixer")


def swin(
    img_size: int = 64, depths: tuple[int, ...] = (2, 2), network: type[nn.Module] = SwinTransformer, **options: object
) -> nn.Module:
    shape = {"embed_dim": 16, "num_heads": (2, 4)[: len(depths)], "window_size": 4, "num_classes": 5}
    return network(img_size=img_size, depths=depths, **shape | options)


swin_v2 = partial(swin, network=SwinTransformerV2)


def twins(depths: tuple[int, ...] = (3, 3), wss: tuple[int, ...] | None = (3, 4), **options: object) -> Twins:
    shape = {"embed_dims": (16, 32), "num_heads": (2, 4), "mlp_ratios": (4, 4), "sr_ratios": (2, 1), "num_classes": 5}
    return Twins(img_size=64, depths=depths, wss=wss, **shape | options)


# The map of the first stage is a quarter of the image: dividing, padded (shifted too), within a window, not square
CASES = {
    "swin": (swin, (64, 64)),
    "swin_padded": (partial(swin, 52), (52, 52)),
    "swin_clipped": (partial(swin, 20), (20, 20)),
    "swin_any_size": (partial(swin, strict_img_size=False), (76, 60)),
    "swin_head_dim": (partial(swin, head_dim=4), (64, 64)),
    "swin_v2": (swin_v2, (64, 64)),
    "swin_v2_padded": (partial(swin_v2, 52), (52, 52)),
    "swin_v2_any_size": (partial(swin_v2, strict_img_size=False), (76, 60)),
    "twins": (twins, (64, 64)),
    "twins_other_size": (twins, (72, 56)),
}
NETWORKS = {"swin": swin, "swin_v2": swin_v2, "twins": twins}


def randomised(model: nn.Module) -> nn.Module:
    """The model with weights, norms too, that let every part show (Swin V2's blocks start with norms of 0)."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.2)
    return model.eval()


def opened(model: nn.Module, gate: float = 20.0) -> nn.Module:
    """The model with its gates at a value: at 20, tanh is 1."""
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            nn.init.constant_(parameter, gate)
    return model


def with_tokens(make: Callable[[], nn.Module], **options: object) -> nn.Module:
    """A model with large weights everywhere and open gates."""
    return opened(randomised(add_global_tokens(make(), **{"num_global_tokens": 3} | options)))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_it_computes_what_it_computed_before(name: str) -> None:
    make, size = CASES[name]
    plain = randomised(make())
    model = copy.deepcopy(plain)
    assert add_global_tokens(model, 3) is model
    x = image(2, 3, *size)
    expected = plain(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.forward_features(x), plain.forward_features(x), rtol=1e-5, atol=1e-5)
    ours, theirs = (each.forward_intermediates(x, intermediates_only=True) for each in (model, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(opened(model)(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_keeps_its_names(name: str) -> None:
    plain = randomised(NETWORKS[name]())
    torch.manual_seed(5)
    model = add_global_tokens(NETWORKS[name](), 3).eval()
    added = model.state_dict().keys() - plain.state_dict().keys()
    assert plain.state_dict().keys() <= model.state_dict().keys()
    assert all(any(part in ADDED for part in key.split(".")) for key in added)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert (set(missing), unexpected) == (added, [])


@torch.no_grad()
def test_swin_with_open_gates_is_glam() -> None:
    """On a map of whole windows: timm pads such that other patches share a window."""
    model = with_tokens(lambda: swin(depths=(3,)))
    stage = model.layers[0]
    config = ModelConfig(embed_dim=16, depths=(3,), num_heads=(2,), window_size=4, num_global_tokens=3)
    ours = Stage(config, 0, [0.0] * 3)
    ours.load_state_dict({key: value for key, value in stage.state_dict().items() if not key.endswith("gate")})
    x = image(2, 16, 16, 16)
    torch.testing.assert_close(stage(x), ours(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_swin_v2_attention_with_open_gates_by_hand() -> None:
    """Cosines of tokens and patches times the scale, the bias between patches only, one softmax; window by window."""
    attention = with_tokens(swin_v2).layers[0].blocks[1].attn
    tokens, patches = image(2, 3, 2, 16), image(2, 3, 16, 16)
    mask = image(3, 16, 16)
    token_update, update = attention.attend_jointly(tokens, patches, mask)
    table = 16 * attention.cpb_mlp(attention.relative_coords_table)[0].sigmoid()  # (7, 7, heads)
    bias = torch.zeros(3, 2, 18, 18)
    for query in range(16):
        for key in range(16):
            offset = query // 4 - key // 4 + 3, query % 4 - key % 4 + 3
            bias[:, :, 2 + query, 2 + key] = table[offset] + mask[:, query, key, None]
    for window in range(3):
        z = torch.cat([tokens[:, window], patches[:, window]], dim=1)
        q = (z @ attention.qkv.weight[:16].T + attention.q_bias).view(2, 18, 2, 8)
        k = (z @ attention.qkv.weight[16:32].T).view(2, 18, 2, 8)
        v = (z @ attention.qkv.weight[32:].T + attention.v_bias).view(2, 18, 2, 8)
        cosines = F.cosine_similarity(q[:, :, None], k[:, None], dim=-1).permute(0, 3, 1, 2)  # (B, heads, 18, 18)
        weights = (cosines * attention.logit_scale.exp() + bias[window]).softmax(dim=-1)
        y = attention.proj(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))
        torch.testing.assert_close(token_update[:, window], y[:, :2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(update[:, window], y[:, 2:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_twins_attention_with_open_gates_equals_torch() -> None:
    attention = with_tokens(twins).blocks[0][0].attn
    tokens, patches = image(2, 3, 2, 16), image(2, 3, 9, 16)
    qkv = attention.qkv(torch.cat([tokens, patches], dim=2)).view(2, 3, 11, 3, 2, 8).permute(3, 0, 1, 4, 2, 5)
    expected = attention.proj(F.scaled_dot_product_attention(*qkv).transpose(2, 3).flatten(3))
    torch.testing.assert_close(
        torch.cat(attention.attend_jointly(tokens, patches, None), dim=2), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["swin", "swin_v2"])
@pytest.mark.parametrize(("gate", "mixer", "whole"), [(1.0, "gmsa", True), (0.0, "gmsa", False), (1.0, "none", False)])
def test_full_contextual_attention(name: str, gate: float, mixer: str, whole: bool) -> None:
    """After two blocks every patch of the map depends on every other one, if gates are open and tokens meet."""
    model = with_tokens(lambda: NETWORKS[name](depths=(2,)), mixer=mixer, num_global_tokens=1).double()
    opened(model, gate)
    x = torch.randn(1, 16, 16, 16, dtype=torch.float64, requires_grad=True)  # a map of 16 windows
    y = model.layers[0](x)
    probe = image(16).double()
    reached = torch.autograd.grad(y[0, 0, 0] @ probe, x)[0].abs().sum(dim=-1) > 1e-20
    assert bool(reached.all()) == whole


@torch.no_grad()
def test_tokens_of_twins_live_through_a_stage() -> None:
    """The exchange in the first block is read in the third; a stage with one window attention has none."""
    x, model = image(1, 3, 64, 64), with_tokens(twins)
    before = model(x)
    assert [getattr(block, "mixer", None) is not None for block in model.blocks[0]] == [True, False, False]
    nn.init.zeros_(model.blocks[0][0].mixer.proj.weight)
    assert not torch.allclose(model(x), before, rtol=1e-4, atol=1e-4)
    short = with_tokens(lambda: twins(depths=(2, 2)))
    assert not any("mixer" in name for name, _ in short.named_parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_training_opens_the_gates_and_then_reaches_all_that_was_added(name: str) -> None:
    model = add_global_tokens(randomised(NETWORKS[name]()), 3)
    x = image(2, 3, 64, 64)
    for step in range(2):
        model.zero_grad()
        model(x).square().sum().backward()
        added = {n: p for n, p in model.named_parameters() if any(part in ADDED for part in n.split("."))}
        assert added
        for parameter_name, parameter in added.items():
            assert parameter.grad.isfinite().all()
            reached = bool(parameter.grad.any())
            assert reached == (step == 1 or parameter_name.endswith("gate")), parameter_name
        opened(model, 0.1)


@pytest.mark.parametrize("mixer", ["none", "pooled", "low_rank", "linear", "performer", "memory"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_mixer_of_tokens_serves(name: str, mixer: str) -> None:
    model = with_tokens(NETWORKS[name], mixer=mixer)
    x = image(2, 3, 64, 64)
    y = model(x)
    assert y.isfinite().all()
    torch.testing.assert_close(model(x[1:]), y[1:], rtol=1e-4, atol=1e-4)  # images of a batch do not meet


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin_tiny_patch4_window7_224", {"embed_dim": 16}),
        ("swinv2_tiny_window8_256", {"embed_dim": 16}),
        ("twins_svt_small", {"embed_dims": (16, 32), "mlp_ratios": (4, 4), "sr_ratios": (2, 1), "wss": (7, 7)}),
    ],
)
@torch.no_grad()
def test_features_only(name: str, options: dict) -> None:
    """timm takes some networks apart for this and wraps others."""
    options = {"img_size": 64, "depths": (3, 3), "num_heads": (2, 4), "out_indices": (0, 1)} | options
    features = randomised(timm.create_model(name, features_only=True, **options))
    x = image(1, 3, 64, 64)
    expected = features(x)
    channels = features.feature_info.channels()
    add_global_tokens(features, 3)
    assert features.feature_info.channels() == channels == [16, 32]
    for ours, theirs in zip(features(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(opened(features)(x)[1], expected[1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_it_is_still_timms_model() -> None:
    model = with_tokens(swin)
    assert type(model) is SwinTransformer
    before = sum(p.numel() for p in model.parameters())
    model.reset_classifier(7)
    assert model(image(1, 3, 64, 64)).shape == (1, 7)
    model.set_input_size(img_size=(96, 64), window_size=4)
    assert model(image(1, 3, 96, 64)).shape == (1, 7)
    assert sum(p.numel() for p in model.parameters()) == before + 2 * 33  # two more rows of the classifier


@pytest.mark.parametrize("name", ["swin", "swin_v2"])
def test_checkpointing_changes_nothing(name: str) -> None:
    model, x = with_tokens(NETWORKS[name]).train(), image(2, 3, 64, 64)
    for drop in (module for module in model.modules() if hasattr(module, "drop_prob")):
        drop.drop_prob = 0.0
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for parameter_name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter_name], gradient)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_exported_program_gives_the_same(name: str) -> None:
    model, x = with_tokens(NETWORKS[name]), image(1, 3, 64, 64)
    exported = torch.export.export(model, (torch.zeros_like(x),)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=1e-5, atol=1e-5)


def test_added_parts_take_type_device_and_mode() -> None:
    model = add_global_tokens(swin().to("meta", torch.bfloat16).eval())
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (partial(nn.Linear, 2, 2), {}, "unknown window transformer 'Linear'; allowed: Swin.*r, Swin.*V2, Twins"),
        (lambda: twins(wss=None), {}, "unknown window transformer 'Twins'; allowed: .*SVT"),  # PCPVT
        (swin, {"num_global_tokens": 0}, "num_global_tokens=0: must be a whole number at least 1"),
        (swin, {"num_global_tokens": True}, "num_global_tokens=True"),
        (swin, {"mixer": "gmas"}, "unknown mixer of tokens 'gmas'; allowed: gmsa, none, pooled"),
        (swin, {"mixer": "full"}, "unknown mixer of tokens 'full'; allowed: gmsa, none, pooled"),
        (lambda: add_global_tokens(swin()), {}, "SwinTransformer has global tokens already"),
    ],
)
def test_errors_say_what_is_allowed_and_leave_the_model(make, options, message):
    model = make()
    before = [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=message):
        add_global_tokens(model, **options)
    assert [type(module) for module in model.modules()] == before

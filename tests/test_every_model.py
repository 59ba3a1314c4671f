"""Every named model and every mixer: any size, each image of a batch alone, export, both counters, checkpointing."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from conftest import image, parameters_of
from fvcore_counter import fvcore_macs
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from glamlib import create_model, list_models
from glamlib.cost.count import COMPONENTS, count_macs, count_parameters
from glamlib.layers.mixers import MIXERS, acts_on_patches
from glamlib.zoo import model_config

NANO = [*list_models("*_nano*"), *list_models("conv_*")]
SMALL = {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 16}
CASES = {name: (name, {}) for name in NANO}
for _mixer in MIXERS:
    _tokens = 0 if acts_on_patches(_mixer) else 2
    CASES[_mixer] = ("glam_swin_nano_linear", SMALL | {"mixer": _mixer, "num_global_tokens": _tokens})
    CASES[f"{_mixer}_3d"] = ("glam_nnformer_nano", {"mixer": _mixer, "num_global_tokens": [2, 0, 3]})
# GLAM's networks hold Swin's, and the other mixers of volumes are those of images
REPRESENTATIVE = [case for case in CASES if not case.endswith("_3d") and f"glam_{case}" not in CASES]
SIZES = {2: [(70, 90), (5, 9), (1, 1)], 3: [(16, 24, 40), (3, 1, 7), (1, 1, 1)]}
ODD = {2: (61, 75), 3: (13, 18, 21)}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def build(case: str) -> nn.Module:
    name, overrides = CASES[case]
    torch.manual_seed(0)
    return create_model(name, num_classes=3, in_channels=2, **overrides)


@pytest.mark.parametrize("name", [*NANO, *list_models("*_tiny_*"), "nnformer", "glam_nnformer"])
def test_shapes_at_full_size(name: str) -> None:
    """On the meta device, which computes nothing. Larger ones repeat these blocks."""
    dimensions = model_config(name).ndim
    with torch.device("meta"):
        model = create_model(name, num_classes=5, in_channels=1).eval()
        x = torch.zeros(1, 1, *(64, 80, 48)[:dimensions])
        assert model(x).shape == (1, 5, *x.shape[2:])
        features = model.forward_features(x)
    assert [feature.shape[1] for feature in features] == list(model.encoder.dims)
    for finer, coarser in pairwise(features):
        assert coarser.shape[2:] == tuple(-(-side // 2) for side in finer.shape[2:])


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("case", CASES)
def test_any_size_forward_and_backward(case: str, number: int) -> None:
    model = build(case).train()
    size = SIZES[model.config.ndim][number]
    logits, auxiliary = model(image(2, 2, *size), auxiliary=True)
    assert logits.shape == (2, 3, *size)
    if model.config.ndim == 3:
        stride = 4 if case.startswith("conv_") else 2
        assert [tuple(lower.shape) for lower in auxiliary] == [(2, 3, *(-(-side // stride) for side in size))]
    else:
        auxiliary = [] if auxiliary is None else [auxiliary]
        assert [lower.shape for lower in auxiliary] == [logits.shape] * case.endswith("_upernet")
    for scores in (logits, *auxiliary):
        assert scores.isfinite().all()
        F.cross_entropy(scores, torch.zeros_like(scores[:, 0], dtype=torch.long)).backward(retain_graph=True)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} is unused"
        assert parameter.grad.isfinite().all(), name
        if number == 0:  # below, a window may hold one patch and then has nothing to compare
            assert parameter.grad.any(), f"{name} has no effect"


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_batch_is_what_each_image_is_alone(case: str) -> None:
    model = build(case).eval()
    x = image(3, 2, *ODD[model.config.ndim])
    together = model(x)
    assert torch.equal(together, model(x))
    for i in range(3):
        torch.testing.assert_close(model(x[i : i + 1]), together[i : i + 1], **CLOSE)


@pytest.mark.parametrize("case", list_models("*swin_nano*") + list_models("*nnformer_nano"))
@torch.no_grad()
def test_a_size_that_is_no_multiple_of_a_patch_equals_the_padded_image(case: str) -> None:
    """The logits keep their place: they are those of the zero-padded image, cut, not squeezed."""
    model = build(case).eval()
    size = ODD[model.config.ndim]
    x = image(1, 2, *size)
    patch = model.config.patch_size
    padded = F.pad(x, [width for side in reversed(size) for width in (0, -side % patch)])
    expected = model(padded)[(..., *(slice(side) for side in size))]
    torch.testing.assert_close(model(x), expected, **CLOSE)


@pytest.mark.parametrize("case", REPRESENTATIVE)
def test_the_two_counters_agree(case: str) -> None:
    model = build(case)
    size = ODD[model.config.ndim]
    found = count_macs(model, *size[-2:], *size[:-2])
    assert found == fvcore_macs(model, *size)
    for counts in (found, parameters := count_parameters(model)):
        assert counts["total"] == sum(counts[component] for component in COMPONENTS)
    assert parameters["total"] == parameters_of(model)
    name, overrides = CASES[case]
    assert (found["g_msa"] > 0) == (name.startswith("glam_") and overrides.get("mixer") != "none")


PAIRS = [("swin_nano_upernet", 4), ("swin_nano_unet", 4), ("swin_nano_unet_nlu", 4), ("nnformer_nano", 3)]


@pytest.mark.parametrize("tokens", [0, [0]], ids=str)
@pytest.mark.parametrize(("name", "stages"), PAIRS)
@torch.no_grad()
def test_without_tokens_it_is_the_network_without_them(name: str, stages: int, tokens: int | list[int]) -> None:
    plain, options = build(name).eval(), {"num_global_tokens": tokens * stages}
    glam = create_model(f"glam_{name}", num_classes=3, in_channels=2, **options)
    glam.load_state_dict(plain.state_dict())  # strict: the same parameters
    x = image(2, 2, *ODD[plain.config.ndim])
    assert torch.equal(glam.eval()(x), plain(x))


@pytest.mark.parametrize(("name", "stages"), PAIRS)
def test_tokens_stage_by_stage(name: str, stages: int) -> None:
    """None in the finest stage: that one is Swin's, on the way down and up. Volumes take windows one a stage, too."""
    tokens, windows = [0, 2, 3, 1][:stages], [4, 2, 3, 4][:stages] if "nnformer" in name else [4] * stages
    options = {"window_size": windows} if "nnformer" in name else {}
    model = create_model(f"glam_{name}", num_classes=3, in_channels=2, num_global_tokens=tokens, **options)
    for stage in [*model.encoder.layers, *getattr(model.decoder, "layers_up", [])]:
        number = tokens[stage.level]
        assert stage.window_size == (windows[stage.level],) * model.config.ndim
        assert bool([key for key in stage.state_dict() if "mixer" in key or "token" in key]) == bool(number)
        assert stage.global_tokens is None or len(stage.global_tokens) == number
    size = ODD[model.config.ndim]
    assert model.eval()(image(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.slow
@pytest.mark.parametrize("case", REPRESENTATIVE)
@torch.no_grad()
def test_exported_program_gives_the_same(case: str) -> None:
    """Exported before the first call: of these sizes, which no other test has, nothing is cached yet."""
    model = build(case).eval()
    x = image(1, 2, *{2: (59, 71), 3: (11, 15, 20)}[model.config.ndim])
    exported = torch.export.export(model, (torch.zeros_like(x),)).module()
    torch.testing.assert_close(exported(x), model(x), **CLOSE)


CHECKPOINTED = {
    "swin_nano_upernet": {},
    "glam_swin_nano_upernet": {"num_global_tokens": 3},
    "glam_swin_nano_unet_nlu": {"num_global_tokens": [3, 0, 2, 1]},
    "glam_swin_nano_linear": {"mixer": "pooled"},
    "nnformer_nano": {},
    "glam_nnformer_nano": {"num_global_tokens": 3},
}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_checkpointing_gives_the_same_bits_for_less_memory(name: str) -> None:
    """Logits and every gradient, also where paths are dropped at random; less is held for the way back."""
    results, held = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = {"drop_path": 0.5, "grad_checkpointing": checkpointing} | CHECKPOINTED[name]
        model = create_model(name, num_classes=3, in_channels=2, **options).train()
        storages: dict[int, int] = {}

        def note(tensor: Tensor, storages: dict = storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(2)  # of the paths that are dropped
        with saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(image(2, 2, *{2: (70, 90), 3: (20, 18, 24)}[model.config.ndim]))
        logits.square().mean().backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None} | {"": logits.detach()})
        held.append(sum(storages.values()) - sum(p.untyped_storage().nbytes() for p in model.parameters()))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())
    assert held[1] < 0.6 * held[0]

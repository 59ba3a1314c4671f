"""Networks for volumes in released behaviour, with the released weights, give the released outputs."""

import pytest
import torch
from conftest import reference, reference_details
from test_released import CLOSE, released_weights, table_attention
from torch import nn

from glamlib import create_model
from glamlib.released import VOLUME_DIFFERENCES, differences_of, load_released
from glamlib.released.stages import ReleasedBlock

NETWORKS = ["nnformer3d_small", "glam3d_p444_g1"]
BLOCKS = ["glam3d_block_w4_s0_g1", "glam3d_block_w4_s2_g3"]


def released_network(name: str, **overrides: object) -> nn.Module:
    """The network of a reference file; its windows are those that it ran with (see `load_released`)."""
    arguments = reference(name)[1]
    shape = arguments.get("cfg", arguments)
    options = {"embed_dim": shape["embed_dim"], "num_heads": shape["num_heads"], "window_size": [4, 4, 4, 2]}
    options |= {"patch_size": shape.get("patch_size", [2, 4, 4]), "num_classes": arguments["num_classes"]}
    options |= {"num_global_tokens": arguments["gt_num"]} if "gt_num" in arguments else {}
    network = "glam_nnformer" if "gt_num" in arguments else "nnformer"
    return create_model(network, in_channels=1, behaviour="released", **options | overrides).eval()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_network(name: str) -> None:
    tensors, _ = reference(name)
    model, weights = released_network(name), released_weights(name)
    loaded = load_released(model, weights)
    assert set(loaded.used) | set(loaded.unused) == set(weights)
    unread = {key.rpartition(".")[0] for key in loaded.unused if not key.endswith("relative_position_index")}
    last = "model_down.layers.3.downsample"
    assert unread == {f"{last}.norm", f"{last}.reduction", "final.2.up"}
    logits, lower = model(tensors["input/0"], auxiliary=True)
    torch.testing.assert_close(logits, tensors["output/0"], **CLOSE)
    assert len(lower) == 1
    torch.testing.assert_close(lower[0], tensors["output/1"], **CLOSE)


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str) -> None:
    """Its outputs, and the gradients of the scalar that the reference's README defines."""
    tensors, arguments = reference(name)
    block = ReleasedBlock(
        differences=differences_of("released", VOLUME_DIFFERENCES), dim=arguments["dim"],
        num_heads=arguments["num_heads"], window_size=(arguments["window_size"],) * 3,
        shifted=bool(arguments["shift_size"]), mixer="gmsa", is_last=False,
    ).eval()  # fmt: skip
    block.mixer = table_attention(arguments, tensors["input/3"])
    load_released(block, released_weights(name))
    x = tensors["input/0"].unflatten(1, arguments["input_resolution"])
    y, new = block(x, tensors["input/2"].unflatten(0, (len(x), -1)))
    outputs = (y.flatten(1, 3), new.flatten(0, 1))
    for k, output in enumerate(outputs):
        torch.testing.assert_close(output, tensors[f"output/{k}"], **CLOSE)
    sum((o.flatten() * torch.cos(0.37 * torch.arange(o.numel()) + k)).sum() for k, o in enumerate(outputs)).backward()
    norms = reference_details(name)["parameter_gradient_norms"]
    norms = {key.replace("gt_attn", "mixer"): value for key, value in norms.items()}
    assert norms.keys() == dict(block.named_parameters()).keys()
    for key, parameter in block.named_parameters():
        assert float(parameter.grad.norm()) == pytest.approx(norms[key], rel=1e-3), key


def test_as_many_parameters_as_the_released_network() -> None:
    """glam.yaml with 10 tokens and 14 classes: 439.9 M, 248.8 M of them tables (METHOD, section 5, 22 and 24)."""
    with torch.device("meta"):
        model = create_model("glam_nnformer", num_classes=14, in_channels=1, behaviour="released", patch_size=4,
                             window_size=[4, 4, 8, 4])  # fmt: skip
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert round(sum(number for name, number in counts.items() if name.endswith(".pe")) / 1e6, 1) == 248.8
    last_downsampling, third_head = 37_754_880, 688_142  # held there and never read
    assert round((sum(counts.values()) + last_downsampling + third_head) / 1e6, 1) == 439.9

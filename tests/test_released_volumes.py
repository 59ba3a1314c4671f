"""Networks for volumes in released behaviour, with the released weights, give the released outputs."""

import pytest
import torch
from conftest import reference, reference_details
from test_released import CLOSE, released_weights
from torch import Tensor, nn

from glamlib import InputError, create_model
from glamlib.released import VOLUME_DIFFERENCES, load_released
from glamlib.released.parts import differences_of
from glamlib.released.stages import PositionTable, TableAttention
from glamlib.released.volumes import ReleasedVolumeBlock, colliding_index

NETWORKS = ["nnformer3d_small", "glam3d_p444_g1"]
BLOCKS = ["glam3d_block_w4_s0_g1", "glam3d_block_w4_s2_g3"]
CPU = torch.device("cpu")


def released_network(name: str, **overrides: object) -> nn.Module:
    """The network of a reference file; its windows are those that it ran with (see `load_released`)."""
    arguments = reference(name)[1]
    shape = arguments.get("cfg", arguments)
    glam = {"num_global_tokens": arguments["gt_num"]} if "gt_num" in arguments else {}
    options = {"embed_dim": shape["embed_dim"], "num_heads": shape["num_heads"], "window_size": [4, 4, 4, 2]}
    options |= {"patch_size": shape.get("patch_size", [2, 4, 4]), "behaviour": "released"}
    return create_model(
        "glam_nnformer" if glam else "nnformer",
        num_classes=arguments["num_classes"],
        in_channels=1,
        **options | glam | overrides,
    ).eval()


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


def block_of(name: str) -> tuple[ReleasedVolumeBlock, Tensor, Tensor]:
    """The block of a reference file with its weights, its map and its tokens."""
    tensors, arguments = reference(name)
    block = ReleasedVolumeBlock(
        differences=differences_of("released", VOLUME_DIFFERENCES), dim=arguments["dim"],
        num_heads=arguments["num_heads"], window_size=(arguments["window_size"],) * 3,
        shifted=bool(arguments["shift_size"]), mixer="gmsa", is_last=False,
    ).eval()  # fmt: skip
    table = PositionTable(1, arguments["dim"])
    table.pe = nn.Parameter(tensors["input/3"])
    block.mixer = TableAttention(arguments["dim"], arguments["num_heads"], table)
    load_released(block, released_weights(name))
    x = tensors["input/0"].unflatten(1, arguments["input_resolution"])
    return block, x, tensors["input/2"].unflatten(0, (len(x), -1))


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str) -> None:
    block, x, tokens = block_of(name)
    y, new = block(x, tokens)
    tensors, _ = reference(name)
    torch.testing.assert_close(y.flatten(1, 3), tensors["output/0"], **CLOSE)
    torch.testing.assert_close(new.flatten(0, 1), tensors["output/1"], **CLOSE)
    # the scalar of the reference's README, so that the backward pass is theirs, too
    outputs = (y.flatten(1, 3), new.flatten(0, 1))
    sum((o.flatten() * torch.cos(0.37 * torch.arange(o.numel()) + k)).sum() for k, o in enumerate(outputs)).backward()
    norms = {key.replace("gt_attn", "mixer"): value
             for key, value in reference_details(name)["parameter_gradient_norms"].items()}  # fmt: skip
    assert norms.keys() == dict(block.named_parameters()).keys()
    for key, parameter in block.named_parameters():
        assert float(parameter.grad.norm()) == pytest.approx(norms[key], rel=1e-3), key


@pytest.mark.parametrize(("side", "used"), [(2, 19), (4, 115), (8, 547)])
def test_colliding_index(side: int, used: int) -> None:
    """METHOD, section 5, point 21: of (2 w - 1)^3 rows few are used. And by hand, from both patches' places."""
    index = colliding_index((side,) * 3, (side,) * 3, CPU)
    assert len(index.unique()) == used
    generator = torch.Generator().manual_seed(0)
    for i, j in torch.randint(side**3, (50, 2), generator=generator).tolist():
        (z, y, x), (z0, y0, x0) = ((n // side**2, n // side % side, n % side) for n in (i, j))
        row = (z - z0 + side - 1) * (3 * side - 1) + (y - y0 + side - 1) * (2 * side - 1) + x - x0 + side - 1
        assert index[i, j] == row


def test_colliding_index_is_the_stored_one() -> None:
    tensors, _ = reference(BLOCKS[0])
    stored = tensors["weight/attn.relative_position_index"]
    assert torch.equal(colliding_index((4, 4, 4), (4, 4, 4), CPU), stored.long())


@torch.no_grad()
def test_every_difference_alone_runs_and_changes_something() -> None:
    """Each switch alone gives another network than the paper's: other weights, or other outputs from the same ones."""
    x = torch.randn(1, 1, 18, 36, 33, generator=torch.Generator().manual_seed(0))
    options = {"num_classes": 3, "in_channels": 1, "num_global_tokens": 2, "depths": (2, 2, 1, 1)}
    options |= {"num_heads": (1, 2, 4, 4), "window_size": (4, 4, 3, 3)}

    def network(behaviour: str) -> nn.Module:
        torch.manual_seed(1)
        return create_model("glam_nnformer_nano", behaviour=behaviour, **options).eval()

    paper = network("paper")
    for parameter in paper.parameters():
        if parameter.ndim == 1 or parameter.shape[0] == 2:  # biases and tokens, so that their use shows
            nn.init.normal_(parameter)
    weights = paper.state_dict()
    logits, lower = paper(x, auxiliary=True)
    for name in VOLUME_DIFFERENCES:
        other = network(name)
        if name in ("random_tokens", "default_init"):
            same = network("paper").state_dict()
            changed = any(not torch.equal(value, same[key]) for key, value in other.state_dict().items())
            assert changed, name
        elif {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in weights.items()}:
            other.load_state_dict(weights)
            assert not torch.allclose(other(x), logits, atol=1e-5), name
        else:
            assert name in ("bare_gmsa", "position_table", "last_gmsa", "fixed_heads", "one_auxiliary"), name
            scores = other(x, auxiliary=True)[1]
            shapes = [tuple(s.shape) for s in scores] != [tuple(s.shape) for s in lower]
            assert shapes == (name in ("fixed_heads", "one_auxiliary"))


def test_unknown_behaviour_lists_the_differences() -> None:
    with pytest.raises(
        InputError, match="unknown behaviour 'fixed_windows'; allowed: paper, released, raw_tokens, ear"
    ):
        create_model("glam_nnformer_nano", num_classes=2, behaviour="raw_tokens+fixed_windows")


def test_weights_that_do_not_fit_are_refused_and_change_nothing() -> None:
    name = "glam3d_p444_g1"
    weights = released_weights(name)
    model = released_network(name, window_size=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"0 left over, 0 missing, 2 of another shape; first: model_down.layers.3.*27"):
        load_released(model, weights)
    with pytest.raises(InputError, match=r"1 left over, 0 missing, 2 of .*encoder.layers.3.strange \(left over\)"):
        load_released(model, {"encoder.layers.3.strange": torch.zeros(1)} | weights)
    del weights["final.0.up.bias"]
    with pytest.raises(InputError, match=r"1 missing"):
        load_released(model, weights)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_volume_too_large_for_the_table_is_a_clear_error() -> None:
    """One token a window, windows of 4: the table ends at 8 x 8 x 8 windows; the paper's code does not."""
    shape = {"num_classes": 2, "in_channels": 1, "num_global_tokens": 1}
    x = torch.zeros(1, 1, 72, 72, 72, device="meta")
    with pytest.raises(InputError, match="729 tokens, and the released table of this stage has 512 rows"):
        create_model("glam_nnformer_nano", behaviour="released", **shape).eval().to("meta")(x)
    create_model("glam_nnformer_nano", **shape).eval().to("meta")(x)


def test_as_many_parameters_as_the_released_network() -> None:
    """glam.yaml with 10 tokens and 14 classes: 439.9 M, 248.8 M of them tables (METHOD, section 5, 22 and 24)."""
    with torch.device("meta"):
        model = create_model("glam_nnformer", num_classes=14, in_channels=1, behaviour="released", patch_size=4,
                             window_size=[4, 4, 8, 4])  # fmt: skip
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert round(sum(number for name, number in counts.items() if name.endswith(".pe")) / 1e6, 1) == 248.8
    last_downsampling, third_head = 37_754_880, 688_142  # held there and never read
    assert round((sum(counts.values()) + last_downsampling + third_head) / 1e6, 1) == 439.9

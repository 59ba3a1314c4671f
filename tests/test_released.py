"""Our modules in released behaviour, with the released weights, give the released outputs."""

from pathlib import Path

import pytest
import torch
from conftest import loud, reference, reference_details, refused
from safetensors.torch import load_file
from torch import Tensor, nn

from glamlib import InputError, ModelConfig, create_model
from glamlib.layers.windows import WindowLayout
from glamlib.models.encoder import Encoder
from glamlib.models.upernet import FCNHead
from glamlib.released import DIFFERENCES, VOLUME_DIFFERENCES, differences_of, load_released, parts_of
from glamlib.released.stages import ReleasedBlock, ReleasedStage, ReleasedUpsampling, ScrambledAttention, TableAttention

ALL = differences_of("released")
# The released "opti" classes build no G-MSA in the last block of a stage
OPTI = "+".join(name for name in DIFFERENCES if name != "last_gmsa")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def released_weights(name: str) -> dict[str, Tensor]:
    """Return a file's weights, with the position tables (stored where they can be read) rebuilt to their full size."""
    tensors, _ = reference(name)
    weights = {key.removeprefix("weight/"): value for key, value in tensors.items() if key.startswith("weight/")}
    for key, table in reference_details(name)["position_tables"].items():
        full = torch.zeros(table["rows"], weights[key].shape[1])
        full[table["start"] : table["start"] + len(weights[key])] = weights[key]
        weights[key] = full
    return weights


def table_attention(arguments: dict, pe: Tensor) -> TableAttention:
    """G-MSA of a reference file, with these rows as its table."""
    return TableAttention(arguments["dim"], arguments["num_heads"], nn.ParameterDict({"pe": pe})).eval()


@pytest.mark.parametrize("name", [
    "swin_w4_64x64", "swin_w7_56x56", "swin_w7_75x61",
    "glam_swin_w4_g1_64x64", "glam_swin_w4_g1_75x61", "glam_swin_w4_g5_64x64", "glam_swin_w7_g1_56x56",
    "glam_swin_w7_g1_75x61", "glam_swin_w7_g5_56x56", "glam_swin_4stage_w7_g5_130x98", "glam_swin_opti_w7_g5_75x61",
])  # fmt: skip
def test_encoder(name: str) -> None:
    tensors, arguments = reference(name)
    shape = arguments["size"]
    config = ModelConfig(
        **{key: shape[key] for key in ("embed_dim", "depths", "num_heads")},
        window_size=arguments["window_size"],
        num_global_tokens=arguments.get("gt_num", 0),
        behaviour=OPTI if arguments.get("opti") else "released",
    )
    encoder = Encoder(config, make_stage=parts_of(config).make_stage).eval()
    weights = released_weights(name)
    loaded = load_released(encoder, weights)
    assert set(loaded.used) | set(loaded.unused) == set(weights)
    assert all(key.endswith("relative_position_index") for key in loaded.unused)
    for level, feature in enumerate(encoder(tensors["input/0"])):
        torch.testing.assert_close(feature, tensors[f"output/{level}"], **CLOSE)


@pytest.mark.parametrize("name", [
    "swin_unet_w7_75x61", "glam_swin_unet_w7_g1_112x112", "glam_swin_unet_nlu_w7_g1_112x112"
])  # fmt: skip
def test_unet(name: str) -> None:
    tensors, arguments = reference(name)
    glam = {"num_global_tokens": arguments["gt_num"]} if "gt_num" in arguments else {}
    model = create_model(
        f"{'glam_' if glam else ''}swin_nano_unet{'_nlu' if 'nlu' in name else ''}",
        num_classes=arguments["num_classes"],
        window_size=arguments["window_size"],
        behaviour="released",
        **{key: arguments["size"][key] for key in ("embed_dim", "depths", "num_heads")},
        **glam,
    ).eval()
    weights = released_weights(name)
    loaded = load_released(model, weights)
    assert set(loaded.used) | set(loaded.unused) == set(weights)
    expected = {"relative_position_index"} | ({"proj_shortcut", "layers_patch_expand"} if "nlu" in name else set())
    assert {word for word in expected if any(word in key for key in loaded.unused)} == expected
    output = tensors["output/0"]
    # the released network leaves the padded size; mmsegmentation then resizes to the image
    logits = model.decoder(model.encoder(tensors["input/0"]))
    torch.testing.assert_close(logits, output, **CLOSE)
    resized = nn.functional.interpolate(output, tuple(tensors["input/0"].shape[2:]), mode="bilinear")
    torch.testing.assert_close(model(tensors["input/0"]), resized, **CLOSE)


@pytest.mark.parametrize("name", [
    "glam_block_w4_s0_g1_10x9", "glam_block_w4_s0_g5_10x9", "glam_block_w4_s2_g1_10x9", "glam_block_w4_s2_g5_10x9",
    "glam_block_w7_s3_g1_14x14", "glam_block_w7_s3_g1_15x13", "glam_block_w7_s3_g5_14x14",
])  # fmt: skip
def test_block(name: str) -> None:
    tensors, arguments = reference(name)
    attributes = reference_details(name)["attributes"]
    x, *_, tokens, pe = (value for key, value in sorted(tensors.items()) if key.startswith("input/"))
    x = x.unflatten(1, (attributes["H"], attributes["W"]))
    block = ReleasedBlock(
        differences=ALL, dim=arguments["dim"], num_heads=arguments["num_heads"],
        window_size=(arguments["window_size"],) * 2, shifted=bool(arguments["shift_size"]), mixer="gmsa", is_last=False,
    ).eval()  # fmt: skip
    block.mixer = table_attention(arguments, pe)
    load_released(block, released_weights(name))
    windows = block.layout_of(x).num_windows
    if tokens.ndim == 2:  # as a stage starts: the same for every window
        tokens = tokens.expand(len(x) * windows, -1, -1)
    y, new = block(x, tokens.unflatten(0, (len(x), windows)))
    torch.testing.assert_close(y.flatten(1, 2), tensors["output/0"], **CLOSE)
    torch.testing.assert_close(new.flatten(0, 1), tensors["output/1"], **CLOSE)


def test_stage() -> None:
    tensors, arguments = reference("glam_stage_w7_g1_15x13")
    level, depth = arguments["id_layer"], arguments["depth"]
    config = ModelConfig(
        embed_dim=arguments["dim"] // 2**level, depths=(depth,) * (level + 1), window_size=arguments["window_size"],
        num_heads=(arguments["num_heads"],) * (level + 1), num_global_tokens=arguments["gt_num"],
    )  # fmt: skip
    stage = ReleasedStage(config, level, [0.0] * depth, differences=ALL).eval()
    weights = released_weights("glam_stage_w7_g1_15x13")
    load_released(stage, {k: v for k, v in weights.items() if not k.startswith("downsample.")})  # our next stage's
    y = stage(tensors["input/0"].unflatten(1, (15, 13)))
    torch.testing.assert_close(y.flatten(1, 2), tensors["output/0"], **CLOSE)


@pytest.mark.parametrize("name", ["gmsa_N30_pe81", "gmsa_silent_broadcast_N486_pe484"])
def test_gmsa_and_its_table_one_row_short(name: str) -> None:
    """The second: 486 tokens, 484 rows; the slice starts at -1 and holds one row, which is added to all tokens."""
    tensors, arguments = reference(name)
    tokens = tensors["input/0"]
    mixer = table_attention(arguments, tensors["input/1"])
    load_released(mixer, released_weights(name))
    windows = tokens if tokens.ndim == 4 else tokens[:, :, None]  # (B, nW, 1, C): every token its own window
    y, _ = mixer(windows, (windows.shape[1], 1))
    torch.testing.assert_close(y.flatten(1, 2), tensors["output/0"], **CLOSE)


@pytest.mark.parametrize("name", ["nlu_w4_14x14_to_28x28", "nlu_w4_9x7_to_17x13", "nlu_w7_14x14_to_28x28",
                                  "nlu_w7_9x7_to_17x13"])  # fmt: skip
def test_upsampling(name: str) -> None:
    tensors, arguments = reference(name)
    attributes = reference_details(name)["attributes"]
    x = tensors["input/0"].unflatten(1, attributes["input_resolution"])
    skip = tensors["input/1"].unflatten(1, attributes["skip_connection_resolution"])
    window = (arguments["window_size"],) * 2
    upsampling = ReleasedUpsampling(arguments["dim"], arguments["num_heads"], window, 4.0, 0.0, differences=ALL).eval()
    loaded = load_released(upsampling, released_weights(name))
    assert any("proj_shortcut" in key for key in loaded.unused)
    torch.testing.assert_close(upsampling(x, skip).flatten(1, 2), tensors["output/0"], **CLOSE)


@pytest.mark.parametrize("name", ["nlu_attention_w4", "nlu_attention_w7"])
def test_upsampling_attention(name: str) -> None:
    tensors, arguments = reference(name)
    window = (arguments["window_size"],) * 2
    attention = ScrambledAttention(arguments["dim"], arguments["num_heads"], window).eval()
    load_released(attention, released_weights(name))
    fine, coarse = sorted((tensors["input/0"], tensors["input/1"]), key=lambda t: t.shape[-1])
    y, _ = attention(fine[:, None], coarse[:, None], WindowLayout(window, window, (0, 0)))
    torch.testing.assert_close(y[:, 0], tensors["output/0"], **CLOSE)


def test_fcn_head() -> None:
    tensors, arguments = reference("fcn_head")
    head = FCNHead(arguments["in_channels"], arguments["channels"], arguments["num_classes"]).eval()
    load_released(head, released_weights("fcn_head"))
    torch.testing.assert_close(head(tensors["input/0.2"]), tensors["output/0"], **CLOSE)


IMAGES = {"name": "glam_swin_nano_unet_nlu", "window_size": 7, "depths": (2, 2, 3), "num_heads": (2, 4, 8)}
VOLUMES = {"name": "glam_nnformer_nano", "in_channels": 1, "window_size": (4, 4, 3, 3), "depths": (2, 2, 1, 1)}
VOLUMES |= {"num_heads": (1, 2, 4, 4)}
ALONE = [(IMAGES, (3, 75, 61), one) for one in DIFFERENCES] + [
    (VOLUMES, (1, 18, 36, 33), one) for one in VOLUME_DIFFERENCES
]


@pytest.mark.parametrize(("options", "size", "difference"), ALONE)
@torch.no_grad()
def test_every_difference_alone_changes_the_network(options, size, difference):
    """Other parameters, or another start of them, or other outputs from the same ones."""
    models = []
    for behaviour in ("paper", difference):
        torch.manual_seed(1)
        models.append(create_model(**options, num_classes=3, num_global_tokens=2, behaviour=behaviour).eval())
    paper, other = (model.state_dict() for model in models)
    if paper.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in paper.items()):
        x = torch.randn(1, *size)
        assert not torch.allclose(*(loud(model, 0.2)(x) for model in models), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "behaviour", "message"),
    [
        ("glam_swin_nano_upernet", "raw", "'raw'; allowed: paper, released, raw_tokens, .*resize_output"),
        ("glam_nnformer_nano", "fixed_windows", "'fixed_windows'; allowed: paper, released, raw_tokens, .*clamped"),
    ],
)
def test_unknown_behaviour_lists_the_differences(name: str, behaviour: str, message: str) -> None:
    with pytest.raises(InputError, match=f"unknown behaviour {message}"):
        create_model(name, num_classes=2, behaviour=f"raw_tokens+{behaviour}")


def test_weights_that_do_not_fit_are_refused() -> None:
    """Dropped ones, others' shapes, and two keys of one weight, one of which would be dropped without a word."""
    encoder = Encoder(ModelConfig(embed_dim=8, depths=(1,), num_heads=(1,), num_global_tokens=1))
    weights = {"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4), "layers.0.strange": torch.zeros(1)}
    with refused("do not fit, ", "keys; first: layers.0.strange (left over)"):
        load_released(encoder, weights)
    with refused("patch_embed.proj.weight ([4, 3, 4, 4], the model has [8, 3, 4, 4])"):
        load_released(encoder, {"patch_embed.proj.weight": torch.zeros(4, 3, 4, 4)})
    block = nn.ModuleDict({"decoder": FCNHead(4, 4, 2)})
    weights = {f"decode_head.{key}": value for key, value in block["decoder"].state_dict().items()}
    load_released(block, weights)
    with refused("1 keys; first: decoder.conv_seg.bias (twice)"):
        load_released(block, weights | {"decoder.conv_seg.bias": torch.ones(2)})


@pytest.mark.parametrize("content", [[torch.zeros(1)], {0: torch.zeros(1)}, {"norm.weight": 3}], ids=str)
def test_what_is_no_state_dict_is_refused(content: object) -> None:
    with pytest.raises(InputError, match="not a state dict, which has a tensor for each name"):
        load_released(nn.Linear(1, 1), content)


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [  # METHOD, section 5, point 7: one token per window cannot run 512x2048
        ("glam_swin_nano_unet", (3, 512, 2048), {"window_size": 7}, "30 tokens, .* this stage has 25 rows"),
        # windows of 4: the table ends at 8 x 8 x 8 windows
        ("glam_nnformer_nano", (1, 72, 72, 72), {"in_channels": 1}, "729 tokens, .* this stage has 512 rows"),
    ],
)
def test_an_image_too_large_for_the_table_is_a_clear_error(name, size, options, message):
    """The paper's behaviour runs at the same size."""
    x = torch.zeros(1, *size, device="meta")
    with torch.device("meta"):
        paper, released = (
            create_model(name, num_classes=2, num_global_tokens=1, behaviour=behaviour, **options).eval()
            for behaviour in ("paper", "released")
        )
    with pytest.raises(InputError, match=message):
        released(x)
    paper(x)


def test_released_behaviour_starts_from_swins_weights(weights_file: Path) -> None:
    """Its table of positions, which Swin does not have, starts as initialised."""
    options = {"num_classes": 2, "num_global_tokens": 1, "behaviour": "released", "pretrained": weights_file}
    encoder, swin = create_model("glam_swin_tiny_linear", **options).encoder.state_dict(), load_file(weights_file)
    assert "layers.0.position_table.pe" in encoder
    assert all(torch.equal(encoder[key], swin[key]) for key in encoder.keys() & swin.keys())

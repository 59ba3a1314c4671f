"""Costs by hand and of the released code, published figures, and reasons for differences."""

from math import ceil, log2

import pandas as pd
import pytest
import torch
from torch import nn

from glamlib import create_model
from glamlib.cost.count import COMPONENTS, count_macs
from glamlib.cost.table import PARTS, SIDES, SIZES, cost_table, encoder_row, neighbours_cost


def by_hand(model: nn.Module, height: int, width: int) -> dict[str, int]:
    """Multiply-adds of an encoder with a linear decoder, from the sizes alone."""
    config, macs = model.config, dict.fromkeys(COMPONENTS, 0)
    rows, columns = ceil(height / config.patch_size), ceil(width / config.patch_size)
    macs["patch_embedding"] = rows * columns * config.embed_dim * 3 * config.patch_size**2
    for stage, depth in enumerate(config.depths):
        channels = config.embed_dim * 2**stage
        if stage:
            rows, columns = ceil(rows / 2), ceil(columns / 2)
            macs["merging"] += rows * columns * (2 * channels) * channels  # 4 C in, 2 C out, C of the stage before
        patches = rows * columns
        window = min(rows, config.window_size), min(columns, config.window_size)
        windows = ceil(rows / window[0]) * ceil(columns / window[1])
        tokens = config.num_global_tokens
        length = tokens + window[0] * window[1]
        macs["w_msa"] += depth * windows * (4 * length * channels**2 + 2 * length**2 * channels)
        # the last block has no mixer and drops its tokens
        macs["g_msa"] += (depth - 1) * (4 * windows * tokens * channels**2 + 2 * (windows * tokens) ** 2 * channels)
        hidden = int(config.mlp_ratio * channels)
        macs["mlp"] += 2 * channels * hidden * (depth * patches + (depth - 1) * windows * tokens)
        macs["decoder"] += patches * channels * model.num_classes
    return {"total": sum(macs.values())} | macs


@pytest.mark.parametrize("size", [(61, 75), (5, 9), (256, 512)])
@pytest.mark.parametrize("name", ["swin_nano_linear", "glam_swin_tiny_linear"])
def test_multiply_adds_by_hand(name, size):
    with torch.device("meta"):
        model = create_model(name, num_classes=7).train()
    assert count_macs(model, *size) == by_hand(model, *size)
    assert model.training  # counted on a copy


def rows(model: str, tokens: int, height: int, width: int) -> dict[str, dict]:
    """The table's rows of a model at one size, by behaviour."""
    table = cost_table(model, (tokens,), ((height, width),))
    return {row["behaviour"]: row for row in table.to_dict("records")}


def test_swin_upernet_beside_published_and_released():
    row = rows("swin_tiny_upernet", 0, 512, 2048)["paper"]
    assert row["gmacs"] == row["released_gmacs"] == 944.385149184
    assert row["parameters"] == row["released_parameters"] == 59_941_862
    assert (row["published_parameters"], row["published_gmacs"]) == (60_000_000, 945)
    assert row["published_gmacs_percent"] == pytest.approx(-0.065, abs=0.001)
    assert row["why"] == ""
    table = cost_table("swin_tiny_upernet")
    assert list(table["gmacs"]) == list(table["released_gmacs"])  # at every size
    assert list(table[["height", "width"]].itertuples(index=False, name=None)) == list(SIZES)
    for quantity in ("parameters", "gmacs"):
        parts = table[[f"{name}_{quantity}" for name in PARTS]].sum(axis=1)
        assert parts.to_numpy(float) == pytest.approx(table[quantity].to_numpy(float))


def test_released_unet_runs_a_gmsa_that_nothing_reads():
    """15,461,821,440 multiply-adds of G-MSA, 6,949,086,720 of them unread (reference, meta device).

    Parameters by hand, of each stage of encoder and decoder: the table of positions, a G-MSA, and its norm in the
    paper's blocks. Multiply-adds of the MLP on 10 tokens per window, which ours alone has: 8 C^2 a token.
    """
    stages = [(96, 2, 0), (192, 2, 1), (384, 6, 2), (768, 2, 3), (96, 2, 0), (192, 2, 1), (384, 6, 2)]
    tables = sum((450 // 2**level) ** 2 * c for c, _, level in stages)
    unread, norms = sum(4 * c**2 + 4 * c for c, *_ in stages), sum((depth - 1) * 2 * c for c, depth, _ in stages)
    mlp = sum((depth - 1) * 10 * ceil(128 / 2**level / 7) ** 2 * 8 * c**2 for c, depth, level in stages)
    found = rows("glam_swin_tiny_unet", 10, 512, 512)
    released, paper = found["released"], found["paper"]
    assert released["g_msa_gmacs"] == 15.46182144
    assert released["g_msa_gmacs"] - paper["g_msa_gmacs"] == pytest.approx(6.94908672, abs=1e-12)
    assert released["gmacs"] == released["released_gmacs"] == 72.985261824
    assert released["parameters"] == released["released_parameters"] == 124_340_676
    assert paper["parameters"] - released["parameters"] == norms - tables - unread
    assert paper["gmacs"] - released["gmacs"] == pytest.approx(mlp / 1e9 - 6.94908672, abs=1e-12)
    assert "the MLP on tokens (+4.50 G)" in paper["why"]
    assert "no table of positions, and no G-MSA in a stage's last block, which nothing reads (-74.27 M)" in paper["why"]


def test_what_the_released_networks_hold_or_run_unseen():
    """NLU's proj_shortcut and layers_patch_expand; a stage's last G-MSA, which fvcore left out; a table too short."""
    nlu = rows("glam_swin_tiny_unet_nlu", 5, 512, 2048)["released"]
    assert nlu["gmacs"] == nlu["released_gmacs"] == 298.691088384
    assert nlu["released_parameters"] - nlu["parameters"] == 387_744 + 1_549_632
    assert nlu["why"] == "parameters: no weights that the released NLU holds and never uses (-1.94 M)"
    base = rows("glam_swin_base_upernet", 10, 512, 512)["released"]
    assert base["released_counter"] == "fvcore"
    assert base["gmacs"] - base["released_gmacs"] == pytest.approx(5.0671667200, abs=1e-9)
    assert "which fvcore left out (+5.07 G)" in base["why"]
    stopped = rows("glam_swin_tiny_upernet", 1, 512, 2048)["released"]
    assert pd.isna(stopped["gmacs"])
    assert stopped["parameters"] == stopped["released_parameters"]
    assert stopped["why"].startswith("cannot run: the map has 30 tokens, and the released table of this stage has 25")


@pytest.mark.parametrize(("mixer", "tokens"), [("gmsa", 10), ("full", 1)])
def test_quadratic_exchanges_by_hand(mixer, tokens):
    """At 224 pixels nothing is padded: maps of 56, 28, 14 and 7 patches, in windows of 7."""
    expected = 0
    for i, (dim, depth) in enumerate(zip((96, 192, 384, 768), (2, 2, 6, 2), strict=True)):
        blocks = depth if mixer == "full" else depth - 1
        count = tokens * (56 // 2**i) ** 2 // (1 if mixer == "full" else 49)
        expected += blocks * (4 * count * dim**2 + 2 * count**2 * dim)
    assert encoder_row("glam_swin_tiny", mixer, 224)["mixer_gmacs"] == expected / 1e9


def test_plain_vit_by_hand():
    """vit_small: 12 blocks of 384 channels on a class token and 16 x 16 patches of 16 pixels, and a simple pyramid."""
    length, dim = 1 + 16 * 16, 384
    body = 256 * 3 * 16**2 * dim + 12 * (12 * length * dim**2 + 2 * length**2 * dim)
    # each transposed convolution: 2 x 2 places from every place; to stride 8 and 4, and to stride 8
    pyramid = 256 * dim * (dim // 2) * 4 + 1024 * (dim // 2) * (dim // 4) * 4 + 256 * dim * (dim // 2) * 4
    row = encoder_row("vit_small", None, 256)
    assert (row["gmacs"], row["pyramid_gmacs"]) == ((body + pyramid) / 1e9, pyramid / 1e9)


def test_growth_and_published_figures():
    """Twins-SVT-S: 2.8 G in its README, of the whole classifier at 224 pixels."""
    table = neighbours_cost(("twins_svt_small",), ("gmsa",))
    assert not table.duplicated(["network", "mixer", "side"]).any()
    assert sorted(table["network"]) == ["glam_swin_tiny"] * 4 + ["swin_tiny"] * 4 + ["twins_svt_small"] * 5
    (row,) = table.dropna(subset="published_gmacs").to_dict("records")
    assert (row["side"], row["published_gmacs"]) == (224, 2.8)
    assert abs(row["published_percent"]) < 5
    swin, glam = (table[table["network"] == network] for network in ("swin_tiny", "glam_swin_tiny"))
    assert list(swin["side"]) == list(SIDES)
    assert (swin["growth"].iloc[1:] < 1.01).all()
    smaller, larger = glam["mixer_gmacs"].iloc[-2:]
    assert glam["mixer_growth"].iloc[-1] == pytest.approx(log2(larger / smaller) / 2)

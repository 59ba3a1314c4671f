"""The cost study: rows by hand and from the released code, and reasons for differences."""

from math import ceil

import pandas as pd
import pytest

from glamlib.cost.table import PARTS, SIZES, cost_table


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
    paper's blocks. Multiply-adds of the MLP on 10 tokens a window, which ours alone has: 8 C^2 a token.
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

"""The cost study: rows by hand and from the released code, and reasons for differences."""

from math import ceil

import pytest

from glamlib.cost import table as study
from glamlib.cost.table import COLUMNS, KEY, PARTS, REFERENCE, SIZES, cost_row, cost_table


def test_swin_upernet_beside_published_and_released() -> None:
    row = cost_row("swin_tiny_upernet", 0, "paper", 512, 2048)
    assert row["gmacs"] == row["released_gmacs"] == 944.385149184
    assert row["parameters"] == row["released_parameters"] == 59_941_862
    assert (row["published_parameters"], row["published_gmacs"]) == (60_000_000, 945)
    assert row["published_gmacs_percent"] == pytest.approx(-0.065, abs=0.001)
    assert row["why"] == ""


def test_released_unet_runs_a_gmsa_that_nothing_reads() -> None:
    """15,461,821,440 multiply-adds of G-MSA, 6,949,086,720 of them unread (reference, meta device).

    Parameters by hand, of each stage of encoder and decoder: the table of positions, a G-MSA, and its norm in the
    paper's blocks. Multiply-adds of the MLP on 10 tokens a window, which ours alone has: 8 C^2 a token.
    """
    stages = [(96, 2, 0), (192, 2, 1), (384, 6, 2), (768, 2, 3), (96, 2, 0), (192, 2, 1), (384, 6, 2)]
    tables = sum((450 // 2**level) ** 2 * c for c, _, level in stages)
    unread, norms = sum(4 * c**2 + 4 * c for c, *_ in stages), sum((depth - 1) * 2 * c for c, depth, _ in stages)
    mlp = sum((depth - 1) * 10 * ceil(128 / 2**level / 7) ** 2 * 8 * c**2 for c, depth, level in stages)
    released = cost_row("glam_swin_tiny_unet", 10, "released", 512, 512)
    paper = cost_row("glam_swin_tiny_unet", 10, "paper", 512, 512)
    assert released["g_msa_gmacs"] == 15.46182144
    assert released["g_msa_gmacs"] - paper["g_msa_gmacs"] == pytest.approx(6.94908672, abs=1e-12)
    assert released["gmacs"] == released["released_gmacs"] == 72.985261824
    assert released["parameters"] == released["released_parameters"] == 124_340_676
    assert paper["parameters"] - released["parameters"] == norms - tables - unread
    assert paper["gmacs"] - released["gmacs"] == pytest.approx(mlp / 1e9 - 6.94908672, abs=1e-12)
    assert "the MLP on tokens (+4.50 G)" in paper["why"]
    assert "which nothing reads (-6.95 G)" in paper["why"]
    assert "no table of positions, and no G-MSA in a stage's last block, which nothing reads (-74.27 M)" in paper["why"]


def test_released_nlu_holds_weights_that_it_never_uses() -> None:
    """proj_shortcut 387,744 and layers_patch_expand 1,549,632: held, never run, so no multiply-adds."""
    row = cost_row("glam_swin_tiny_unet_nlu", 5, "released", 512, 2048)
    assert row["gmacs"] == row["released_gmacs"] == 298.691088384
    assert row["released_parameters"] - row["parameters"] == 387_744 + 1_549_632
    assert row["why"] == "parameters: no weights that the released NLU holds and never uses (-1.94 M)"


def test_fvcore_left_out_what_nothing_reads() -> None:
    row = cost_row("glam_swin_base_upernet", 10, "released", 512, 512)
    assert row["released_counter"] == "fvcore"
    assert row["gmacs"] - row["released_gmacs"] == pytest.approx(5.0671667200, abs=1e-9)
    assert "which fvcore left out (+5.07 G)" in row["why"]


def test_a_released_model_that_cannot_run_has_no_multiply_adds() -> None:
    row = cost_row("glam_swin_tiny_upernet", 1, "released", 512, 2048)
    assert "gmacs" not in row
    assert row["parameters"] == row["released_parameters"]
    assert row["why"].startswith("cannot run: the map has 30 tokens, and the released table of this stage has 25 rows")


def test_a_difference_that_the_reasons_do_not_make_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "REFERENCE", REFERENCE.assign(multiply_adds=REFERENCE["multiply_adds"] + 1))
    with pytest.raises(RuntimeError, match="multiply-adds: 60199981824 and 60199981825 differ by -1"):
        cost_row("swin_tiny_upernet", 0, "paper", 256, 256)
    monkeypatch.setattr(study, "PUBLISHED", {"swin_tiny_upernet": (60_000_000, 237.0)})  # the other size's
    with pytest.raises(RuntimeError, match="that nothing explains"):
        cost_row("swin_tiny_upernet", 0, "paper", 512, 2048)


def test_table_has_a_row_a_size_and_numbers_that_add_up() -> None:
    table = cost_table("glam_swin_nano_upernet", tokens=(5,))
    assert list(table) == list(COLUMNS)
    assert list(table[KEY].itertuples(index=False, name=None)) == [
        ("glam_swin_nano_upernet", 5, "paper", *s) for s in SIZES
    ]
    for quantity in ("parameters", "gmacs"):
        parts = table[[f"{name}_{quantity}" for name in PARTS]].sum(axis=1)
        assert parts.to_numpy(float) == pytest.approx(table[quantity].to_numpy(float))

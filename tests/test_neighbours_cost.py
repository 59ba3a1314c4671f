"""The neighbours' cost: exponents and costs by hand, and the published figures."""

from math import log2

import pytest

from glamlib.cost.table import SIDES, encoder_row, neighbours_cost


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

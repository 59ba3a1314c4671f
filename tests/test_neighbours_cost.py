"""The neighbours' cost: exponents and costs by hand, and the whole model's count."""

import pandas as pd
import pytest
import torch

from glamlib import create_model
from glamlib.cost import neighbours as study
from glamlib.cost.count import count_macs
from glamlib.cost.neighbours import KEY, SIDES, backbone_row, encoder_row, growth, neighbours_cost

DEPTHS = (2, 2, 6, 2)
DIMS = (96, 192, 384, 768)


def test_growth_is_the_exponent_in_pixels() -> None:
    def exponents(macs: dict[int, int]) -> list[float]:
        return growth(pd.Series(list(macs)), pd.Series(list(macs.values()))).tolist()[1:]

    assert exponents({256: 3, 512: 12, 1024: 48}) == pytest.approx([1, 1])
    assert exponents({10: 5, 30: 5 * 3**4}) == pytest.approx([2])
    assert exponents({256: 0, 512: 0}) == pytest.approx([float("nan")], nan_ok=True)
    # 4 N C^2 + 2 N^2 C, N from 2 C to 8 C: from 8 C^3 + 8 C^3 to 32 C^3 + 128 C^3
    assert exponents({1: 16, 2: 160}) == pytest.approx([1.6609640474])


@pytest.mark.parametrize(("mixer", "tokens"), [("gmsa", 10), ("full", 1)])
def test_quadratic_exchanges_by_hand(mixer: str, tokens: int) -> None:
    """At 224 pixels nothing is padded: maps of 56, 28, 14 and 7 patches, in windows of 7."""
    expected = 0
    for i, (dim, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        blocks = depth if mixer == "full" else depth - 1
        count = tokens * (56 // 2**i) ** 2 // (1 if mixer == "full" else 49)
        expected += blocks * (4 * count * dim**2 + 2 * count**2 * dim)
    assert encoder_row(study.mixer_config(mixer), 224)["mixer_gmacs"] == expected / 1e9


def test_plain_vit_by_hand() -> None:
    """vit_small: 12 blocks of 384 channels on a class token and 16 x 16 patches of 16 pixels, and a simple pyramid."""
    length, dim = 1 + 16 * 16, 384
    body = 256 * 3 * 16**2 * dim + 12 * (12 * length * dim**2 + 2 * length**2 * dim)
    # each transposed convolution: 2 x 2 places from every place; to stride 8 and 4, and to stride 8
    pyramid = 256 * dim * (dim // 2) * 4 + 1024 * (dim // 2) * (dim // 4) * 4 + 256 * dim * (dim // 2) * 4
    row = backbone_row("vit_small", 256)
    assert (row["gmacs"], row["pyramid_gmacs"]) == ((body + pyramid) / 1e9, pyramid / 1e9)


@pytest.mark.parametrize("mixer", ["low_rank"])
def test_encoder_is_the_whole_model_but_its_decoder(mixer: str) -> None:
    """Straight from the model, whose blocks are all counted."""
    config = study.mixer_config(mixer)
    tokens = {"num_global_tokens": config.num_global_tokens}
    with torch.device("meta"):
        model = create_model("glam_swin_tiny_linear", num_classes=5, mixer=mixer, **tokens)
    macs, row = count_macs(model, 256, 256), encoder_row(config, 256)
    assert (row["gmacs"], row["mixer_gmacs"]) == ((macs["total"] - macs["decoder"]) / 1e9, macs["g_msa"] / 1e9)
    assert row["parameters"] == sum(parameter.numel() for parameter in model.encoder.parameters())


def test_published_figures_stand_beside_ours() -> None:
    """Twins-SVT-S: 2.8 G in its README, of the whole classifier at 224 pixels."""
    table = neighbours_cost(("twins_svt_small",), ())
    assert not table.duplicated(KEY).any()
    assert sorted(table["network"]) == ["swin_tiny"] * 4 + ["twins_svt_small"] * 5
    (row,) = table.dropna(subset="published_gmacs").to_dict("records")
    assert (row["side"], row["published_gmacs"]) == (224, 2.8)
    assert abs(row["published_percent"]) < 5
    swin = table[table["network"] == "swin_tiny"]
    assert list(swin["side"]) == list(SIDES)
    assert (swin["growth"].iloc[1:] < 1.01).all()

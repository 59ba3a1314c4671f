"""What a fused G-MSA multiplies twice, against the shapes of its products in a pass and by hand."""

import pandas as pd
import pytest
import torch

from glamlib.layers.attention import GlobalAttention
from glamlib.models.zoo import create_model, model_config
from glamlib.study.remade import predicted_with_remade, remade_gmacs


@pytest.mark.parametrize("tokens", [1, 3, (2, 0, 1, 5)])
@pytest.mark.parametrize("size", [64, 100])
def test_it_is_the_products_of_a_pass(tokens, size, monkeypatch):
    made = []
    plain = GlobalAttention.exchange

    def watched(self, q, k, *rest):
        made.append(q.shape[1] * q.shape[2] * k.shape[2] * q.shape[3])  # heads x N x N x d
        return plain(self, q, k, *rest)

    monkeypatch.setattr(GlobalAttention, "exchange", watched)
    name, overrides = "glam_swin_nano_linear", {"num_global_tokens": tokens, "depths": (2, 3, 2, 2)}
    create_model(name, num_classes=2, **overrides)(torch.zeros(1, 3, size, size))
    assert remade_gmacs(model_config(name, **overrides), size) == pytest.approx(sum(made) / 1e9)


def test_a_ratio_by_hand():
    """Swin-T at 1024 pixels: 37, 19, 10 and 5 windows along a side, 96 to 768 channels, 1, 1, 5 and 1 exchanges."""
    row = {"mixer": "gmsa", "tokens": 10, "network": "tiny", "size": 1024, "batch": 2, "gmacs": 600.0}
    macs = 13690**2 * 96 + 3610**2 * 192 + 5 * 1000**2 * 384 + 250**2 * 768
    row = pd.Series(row | {"macs_ratio": 1.5})
    assert predicted_with_remade(row) == pytest.approx(1.5 + 2 * macs / 1e9 / 400)
    row["mixer"] = "pooled"
    assert predicted_with_remade(row) == 1.5

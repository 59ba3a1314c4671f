"""Costs: torch's counter against fvcore's, against formulas, and against counts of the released code."""

from math import ceil

import pytest
import torch
from torch import nn

from glamlib import create_model
from glamlib.cost.count import COMPONENTS, count_macs


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

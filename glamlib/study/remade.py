"""What a fused G-MSA multiplies twice: its backward pass makes the logits again, because nothing has kept them."""

from math import ceil

import pandas as pd

from glamlib.models.config import ModelConfig
from glamlib.models.zoo import model_config


def remade_gmacs(config: ModelConfig, size: int) -> float:
    """Return the 10^9 multiply-adds of ``q k^T`` in all G-MSAs of an encoder, for a square image of ``size`` pixels."""
    macs = 0
    for level, depth in enumerate(config.depths):
        side = ceil(size / (config.patch_size * 2**level))  # patches
        length = ceil(side / config.window_size) ** 2 * config.tokens_of(level)
        macs += (depth - 1) * length**2 * config.embed_dim * 2**level  # the last block of a stage has no G-MSA
    return macs / 1e9


def predicted_with_remade(row: pd.Series) -> float:
    """Return the ratio with Swin that multiply-adds predict, those that are made again included.

    Args:
        row: of the speed benchmark's table (`glamlib.study.speed.measure`), an encoder in training. Its ``macs_ratio``
            counts useful ones alone.
    """
    if row["mixer"] != "gmsa" or not row["tokens"]:
        return row["macs_ratio"]
    config = model_config(f"glam_swin_{row['network']}_linear", num_global_tokens=row["tokens"])
    of_swin = row["gmacs"] / row["macs_ratio"]
    return row["macs_ratio"] + row["batch"] * remade_gmacs(config, row["size"]) / of_swin

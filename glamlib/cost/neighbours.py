"""What the neighbours cost against image size: other backbones, and GLAM with each mixer.

python -m glamlib.cost.neighbours RESULTS

Published figures (``published_backbones.csv``) are those of whole ImageNet classifiers. Ours have no classifier (1000 C
multiply-adds), and their pyramid, which a classifier lacks, is left out of the difference.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from glamlib.backbones.create import create_backbone
from glamlib.cost.count import macs_by_module
from glamlib.cost.table import macs_of, parameters_of, percent
from glamlib.files import write_whole
from glamlib.layers.mixers import MIXERS, acts_on_patches
from glamlib.models.config import ModelConfig
from glamlib.zoo import model_config

SIDES = (256, 512, 1024, 2048)  # of square images, in pixels
GLAM = "glam_swin_tiny"
# One of each family, of the published size nearest to Swin-T's
NEIGHBOURS = (
    *("pvt_small", "pvt_v2_b2", "twins_pcpvt_small", "twins_svt_small", "cvt_13", "vil_small"),
    *("vit_small", "t2t_vit_14", "tnt_s", "crossvit_small"),
)
KEY = ["network", "mixer", "side"]  # one row each
COLUMNS = (
    *("network", "mixer", "tokens", "side", "parameters", "gmacs", "growth"),
    *("mixer_gmacs", "mixer_growth", "pyramid_gmacs"),
    *("published_gmacs", "published_percent", "published_source"),
)
_AUTHORS = pd.read_csv(Path(__file__).with_name("published_backbones.csv"), comment="#")
PUBLISHED = _AUTHORS[_AUTHORS["task"] == "classify"].dropna().set_index("backbone")


def mixer_config(mixer: str) -> ModelConfig:
    """Return GLAM-Swin-T with a mixer; a mixer that acts on patches has no global tokens."""
    tokens = {"num_global_tokens": 0} if acts_on_patches(mixer) else {}
    return model_config(f"{GLAM}_linear", mixer=mixer, **tokens)


def encoder_row(config: ModelConfig, side: int) -> dict[str, float]:
    """Return parameters, gmacs and the mixer's part of them, of the encoder of Swin or GLAM."""
    macs, parameters = macs_of(config, side, side), parameters_of(config)
    row = {"parameters": parameters["total"] - parameters["decoder"], "gmacs": (macs["total"] - macs["decoder"]) / 1e9}
    return row | {"mixer_gmacs": macs["g_msa"] / 1e9, "pyramid_gmacs": 0.0}


def backbone_row(name: str, side: int) -> dict[str, float]:
    """Return parameters, gmacs and the part of a ViT's pyramid of them, of a named backbone."""
    with torch.device("meta"):
        backbone = create_backbone(name)
    backbone.in_channels = 3  # which the counter asks for
    macs = macs_by_module(backbone, side, side)
    row = {"parameters": sum(p.numel() for p in backbone.parameters()), "gmacs": macs[""] / 1e9}
    return row | {"mixer_gmacs": 0.0, "pyramid_gmacs": macs.get("pyramid", 0) / 1e9}


def published_row(name: str) -> dict[str, object]:
    """Return the row of a backbone at the size of its published figure, with that figure."""
    published = PUBLISHED.loc[name]
    side = int(published["height"])
    row = {"side": side, "published_gmacs": published["gmacs"], "published_source": published["source"]}
    row |= backbone_row(name, side)
    return row | {"published_percent": percent(row["gmacs"] - row["pyramid_gmacs"], published["gmacs"])}


def growth(sides: pd.Series, values: pd.Series) -> pd.Series:
    """Return the exponent a in values ~ pixels^a from each side to the next, at the latter; NaN where there is none."""
    return np.log(values.where(values > 0)).diff() / (2 * np.log(sides).diff())


def neighbours_cost(backbones: tuple[str, ...] = NEIGHBOURS, mixers: tuple[str, ...] = tuple(MIXERS)) -> pd.DataFrame:
    """Return one tidy row for each of `KEY`: Swin-T, GLAM-Swin-T with each mixer, and the neighbours.

    ``gmacs`` are those of one square image, ``growth`` the exponent in pixels since the side before; ``mixer_gmacs``
    and ``mixer_growth`` are those of the exchange alone, with its projections; ``published_percent`` is ours above
    theirs.
    """
    encoders = {("swin_tiny", None): model_config("swin_tiny_linear")}
    encoders |= {(GLAM, mixer): mixer_config(mixer) for mixer in mixers}
    parts = []
    for (network, mixer), config in encoders.items():
        rows = pd.DataFrame({"side": side} | encoder_row(config, side) for side in SIDES)
        tokens = None if mixer is None else config.num_global_tokens
        parts.append(rows.assign(network=network, mixer=mixer, tokens=tokens))
    for name in backbones:
        parts.append(pd.DataFrame({"side": side} | backbone_row(name, side) for side in SIDES).assign(network=name))
    for rows in parts:
        rows["growth"] = growth(rows["side"], rows["gmacs"])
        rows["mixer_growth"] = growth(rows["side"], rows["mixer_gmacs"])
    published = [published_row(name) | {"network": name} for name in backbones if name in PUBLISHED.index]
    table = pd.concat([*parts, pd.DataFrame(published)], ignore_index=True)
    return table.reindex(columns=COLUMNS).astype({"tokens": "Int64"})


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]) / "tables" / "neighbours_cost.csv", neighbours_cost().to_csv(index=False))

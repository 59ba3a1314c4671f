"""What the neighbours cost against image size: other backbones, and GLAM with each mixer.

python -m glamlib.cost.neighbours RESULTS

Published figures (``published_backbones.csv``) are those of whole ImageNet classifiers. Ours have no classifier (1000 C
multiply-adds), and their pyramid, which a classifier lacks, is left out of the difference.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path

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
_AUTHORS = pd.read_csv(Path(__file__).with_name("published_backbones.csv"), comment="#")
PUBLISHED = _AUTHORS[_AUTHORS["task"] == "classify"].dropna().set_index("backbone")


@dataclass(frozen=True)
class Counted:
    """Cost of a network without a decoder: parameters, and multiply-adds of one image.

    ``mixer`` and ``pyramid`` are the parts of ``macs`` for the exchange between windows, and for a ViT's pyramid.
    """

    parameters: int
    macs: int
    mixer: int = 0
    pyramid: int = 0


def encoder_cost(config: ModelConfig, side: int) -> Counted:
    """Return the cost of the encoder of Swin or GLAM."""
    macs, parameters = macs_of(config, side, side), parameters_of(config)
    rest = ("decoder", "upsampling", "auxiliary")
    encoder = (count["total"] - sum(count[name] for name in rest) for count in (parameters, macs))
    return Counted(*encoder, mixer=macs["g_msa"])


def backbone_cost(name: str, side: int) -> Counted:
    """Return the cost of a named backbone."""
    with torch.device("meta"):
        backbone = create_backbone(name)
    backbone.in_channels = 3  # which the counter asks for
    macs = macs_by_module(backbone, side, side)
    return Counted(sum(p.numel() for p in backbone.parameters()), macs[""], pyramid=macs.get("pyramid", 0))


def mixer_config(mixer: str) -> ModelConfig:
    """Return GLAM-Swin-T with a mixer; a mixer that acts on patches has no global tokens."""
    tokens = {"num_global_tokens": 0} if acts_on_patches(mixer) else {}
    return model_config(f"{GLAM}_linear", mixer=mixer, **tokens)


def growth(macs: dict[int, int]) -> dict[int, float]:
    """Return the exponent a in macs ~ pixels^a from each side to the next, keyed by the latter; ``macs`` by side."""
    steps = [(before, after) for before, after in pairwise(macs) if macs[before]]
    return {after: log(macs[after] / macs[before]) / (2 * log(after / before)) for before, after in steps}


def _rows(counts: dict[int, Counted], **network: object) -> list[dict]:
    """Return a row for each side of one network."""
    whole = growth({side: count.macs for side, count in counts.items()})
    mixer = growth({side: count.mixer for side, count in counts.items()})
    return [
        network
        | {"side": side, "parameters": count.parameters, "gmacs": count.macs / 1e9, "growth": whole.get(side)}
        | {"mixer_gmacs": count.mixer / 1e9, "mixer_growth": mixer.get(side), "pyramid_gmacs": count.pyramid / 1e9}
        for side, count in counts.items()
    ]


def encoder_rows(config: ModelConfig, **network: object) -> list[dict]:
    """Return the rows of Swin or GLAM."""
    return _rows({side: encoder_cost(config, side) for side in SIDES}, **network)


def backbone_rows(name: str) -> list[dict]:
    """Return the rows of a neighbour, the first at the size of its published figure, if there is one."""
    rows = _rows({side: backbone_cost(name, side) for side in SIDES}, network=name)
    if name not in PUBLISHED.index:
        return rows
    published = PUBLISHED.loc[name]
    side = int(published["height"])
    count = backbone_cost(name, side)
    (row,) = _rows({side: count}, network=name)
    row |= {f"published_{what}": published[what] for what in ("gmacs", "source")}
    row["published_percent"] = percent((count.macs - count.pyramid) / 1e9, published["gmacs"])
    return [row, *rows]


def neighbours_cost(backbones: tuple[str, ...] = NEIGHBOURS, mixers: tuple[str, ...] = tuple(MIXERS)) -> pd.DataFrame:
    """Return one tidy row for each of `KEY`: Swin-T, GLAM-Swin-T with each mixer, and the neighbours.

    Columns: `KEY` (mixer only for GLAM), tokens a window, parameters, gmacs of one square image, growth (the exponent,
    in pixels, since the side before); mixer_gmacs and mixer_growth of the exchange alone, with its projections;
    pyramid_gmacs of the pyramid alone; published_gmacs, published_percent (ours above theirs), published_source.
    """
    rows = encoder_rows(model_config("swin_tiny_linear"), network="swin_tiny")
    for mixer in mixers:
        config = mixer_config(mixer)
        rows += encoder_rows(config, network=GLAM, mixer=mixer, tokens=config.num_global_tokens)
    for name in backbones:
        rows += backbone_rows(name)
    order = ["network", "mixer", "tokens", "side", "parameters", "gmacs", "growth"]
    order += ["mixer_gmacs", "mixer_growth", "pyramid_gmacs"]
    order += [f"published_{what}" for what in ("gmacs", "percent", "source")]
    return pd.DataFrame(rows).reindex(columns=order).astype({"tokens": "Int64"})


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]) / "tables" / "neighbours_cost.csv", neighbours_cost().to_csv(index=False))

"""What the neighbours cost against image size: other backbones, and GLAM with each mixer.

python -m glamlib.cost.neighbours RESULTS

Published figures (``published_backbones.csv``) are of ImageNet classifiers. Ours have no classifier (1000 C
multiply-adds), and their pyramid, which a classifier lacks, is left out of the difference.
"""

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from glamlib.cost.count import by_component, macs_by_module
from glamlib.files import write_whole
from glamlib.layers.mixers import MIXERS, acts_on_patches
from glamlib.zoo import create_model

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


@lru_cache(maxsize=1)
def _model(network: str, mixer: str | None) -> nn.Module:
    """Return a network without memory for its weights."""
    options = {} if mixer is None else {"mixer": mixer, "num_global_tokens": 0 if acts_on_patches(mixer) else 10}
    with torch.device("meta"):
        return create_model(f"{network}_upernet", num_classes=1, **options)


def encoder_row(network: str, mixer: str | None, side: int) -> dict[str, object]:
    """Return parameters and gmacs of an encoder, and the mixer's and a simple pyramid's part of the latter."""
    model = _model(network, mixer)
    macs = macs_by_module(model, side, side)
    return {
        "network": network,
        "mixer": mixer,
        "tokens": None if mixer is None else model.config.num_global_tokens,
        "side": side,
        "parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
        "gmacs": macs["encoder"] / 1e9,
        "mixer_gmacs": by_component(macs)["g_msa"] / 1e9,
        "pyramid_gmacs": macs.get("encoder.pyramid", 0) / 1e9,
    }


def neighbours_cost(backbones: tuple[str, ...] = NEIGHBOURS, mixers: tuple[str, ...] = tuple(MIXERS)) -> pd.DataFrame:
    """Return one tidy row for each of `KEY`: Swin-T, GLAM-Swin-T with each mixer, and the neighbours.

    ``gmacs`` are those of one square image, ``growth`` the exponent a in gmacs ~ pixels^a since the side before; those
    of a mixer are of the exchange alone. ``published_percent``, in rows of their own, is ours above theirs.
    """
    networks = [("swin_tiny", None), *((GLAM, mixer) for mixer in mixers), *((name, None) for name in backbones)]
    table = pd.DataFrame(encoder_row(*network, side) for network in networks for side in SIDES)
    logs = np.log(table[["side", "gmacs", "mixer_gmacs"]].where(lambda values: values > 0))
    steps = logs.groupby([table["network"], table["mixer"]], dropna=False).diff()
    table["growth"] = steps["gmacs"] / (2 * steps["side"])
    table["mixer_growth"] = steps["mixer_gmacs"] / (2 * steps["side"])
    authors = PUBLISHED[PUBLISHED.index.isin(backbones)]
    beside = pd.DataFrame([encoder_row(row.Index, None, row.height) for row in authors.itertuples()])
    beside["published_gmacs"], beside["published_source"] = authors["gmacs"].to_numpy(), authors["source"].to_numpy()
    beside["published_percent"] = 100 * ((beside["gmacs"] - beside["pyramid_gmacs"]) / beside["published_gmacs"] - 1)
    return pd.concat([table, beside], ignore_index=True).astype({"tokens": "Int64"})


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]) / "tables" / "neighbours_cost.csv", neighbours_cost().to_csv(index=False))

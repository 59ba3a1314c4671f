"""The cost study: every named model beside published and released figures, and the neighbours against image size.

python -m glamlib.cost.table FOLDER/cost.csv (or FOLDER/neighbours_cost.csv)
- published: ``published_swin.csv``. The GLAM paper's tables were not available, so none of its figures are here.
- released: ``reference_costs.csv``. ``counter`` names what counted: torch's, on the meta device, sees everything that
  runs; fvcore skips what no output depends on.
- neighbours (other backbones): ``published_backbones.csv``, of ImageNet classifiers. Ours have no classifier (1000 C
  multiply-adds), and their pyramid, which a classifier lacks, is left out of the difference.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from glamlib.cost.count import COMPONENTS, by_component, count_macs, count_parameters, macs_by_module
from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.layers.mixers import MIXERS, acts_on_patches
from glamlib.models.config import ModelConfig
from glamlib.zoo import MODELS, create_model, list_models

CLASSES = 150
TOKENS = (1, 5, 10, 15)  # a window; those of the released configurations
SIZES = ((256, 256), (512, 512), (1024, 1024), (512, 2048))  # height and width in pixels
PARTS = tuple(name for name in COMPONENTS if name != "backbone")  # which these models have not
KEY = ["model", "tokens", "behaviour", "height", "width"]  # one row each
SAME = ["model", "tokens", "height", "width"]
NOTABLE = 0.5  # percent; larger differences are explained
PUBLISHED = pd.read_csv(Path(__file__).with_name("published_swin.csv"), comment="#")
REFERENCE = pd.read_csv(Path(__file__).with_name("reference_costs.csv"), comment="#").rename(
    columns={"parameters": "released_parameters", "multiply_adds": "released_macs", "counter": "released_counter"}
)
# Why a component of the paper's model costs more or less than the released one's
REASONS = {
    "parameters": {
        "g_msa": "no table of positions, and no G-MSA in a stage's last block, which nothing reads",
        "upsampling": "a norm of the skip in NLU, and a table of biases without rows that are out of reach",
    },
    "macs": {"mlp": "the MLP on tokens", "g_msa": "no G-MSA in a stage's last block, which nothing reads"},
}
# The neighbours: one of each family, of the published size nearest to Swin-T's
NEIGHBOURS = (
    *("pvt_small", "pvt_v2_b2", "twins_pcpvt_small", "twins_svt_small", "cvt_13", "vil_small"),
    *("vit_small", "t2t_vit_14", "tnt_s", "crossvit_small"),
)
SIDES = (256, 512, 1024, 2048)  # of square images, in pixels
CLASSIFIERS = pd.read_csv(Path(__file__).with_name("published_backbones.csv"), comment="#", index_col="backbone")
CLASSIFIERS = CLASSIFIERS[CLASSIFIERS["task"] == "classify"].dropna()


def cases(pattern: str, tokens: tuple[int, ...]) -> Iterator[tuple[str, int, str]]:
    """Yield model, tokens per window (0 for Swin) and behaviour: as released, too, where the released code has it."""
    released = set(zip(REFERENCE["model"], REFERENCE["tokens"], strict=True))
    for name in list_models(pattern):
        if isinstance(MODELS[name], ModelConfig) and not name.endswith("_linear"):
            for number in tokens if name.startswith("glam_") else (0,):
                yield name, number, "paper"
                if number and (name, number) in released:
                    yield name, number, "released"


@lru_cache(maxsize=1)
def _model(name: str, **overrides: object) -> nn.Module:
    """Return a network without memory for its weights."""
    with torch.device("meta"):
        return create_model(name, num_classes=CLASSES, **overrides)


def cost_row(model: str, tokens: int, behaviour: str, height: int, width: int) -> dict[str, object]:
    """Return the counts of one row. Where a released model cannot run at this size, ``why`` says so, without macs."""
    network = _model(model, behaviour=behaviour, **({"num_global_tokens": tokens} if tokens else {}))
    row = dict(zip(KEY, (model, tokens, behaviour, height, width), strict=True)) | {"classes": CLASSES, "why": ""}
    counts = {"parameters": count_parameters(network)}
    try:
        counts["macs"] = count_macs(network, height, width)
    except InputError as error:
        row["why"] = f"cannot run: {error}"
    for what, of in counts.items():
        row |= {what: of["total"]} | {f"{name}_{what}": of[name] for name in PARTS}
    return row


def explain(what: str, row: pd.Series, like: pd.DataFrame) -> str:
    """Return the reasons (above 0.1 %) of a difference from the released code, or "" below `NOTABLE` percent.

    ``like`` has the rows of the released behaviour by `SAME`. Raises RuntimeError where the reasons do not add up to
    the difference, to the last parameter or multiply-add.
    """
    theirs = row[f"released_{what}"]
    if pd.isna(theirs):
        return ""
    released = like.loc[tuple(row[key] for key in SAME)]
    terms = {reason: row[f"{part}_{what}"] - released[f"{part}_{what}"] for part, reason in REASONS[what].items()}
    left = released[what] - theirs
    if what == "parameters" and row["model"].endswith("_nlu"):
        terms["no weights that the released NLU holds and never uses"] = left
    elif what == "macs" and row["released_counter"] == "fvcore":
        terms["the G-MSA of a stage's last block, which runs unread and which fvcore left out"] = left
    if row[what] - theirs != sum(terms.values()):
        raise RuntimeError(f"{row['model']}: {row[what]:.0f} and {theirs:.0f} {what}, and the reasons say {terms}")
    if abs(row[f"released_{what}_percent"]) <= NOTABLE:
        return ""
    name, unit, scale = ("parameters", "M", 1e6) if what == "parameters" else ("multiply-adds", "G", 1e9)
    large = {reason: value for reason, value in terms.items() if abs(value) > 0.001 * theirs}
    return f"{name}: " + ", ".join(f"{reason} ({value / scale:+.2f} {unit})" for reason, value in large.items())


def cost_table(
    pattern: str = "*", tokens: tuple[int, ...] = TOKENS, sizes: tuple[tuple[int, int], ...] = SIZES
) -> pd.DataFrame:
    """Return one tidy row for each of `KEY`: the cost of one image, by component, too.

    Beside it stand published and released figures where known, in percent how far ours are above them, and why, for
    every difference above `NOTABLE` percent. Raises RuntimeError for a difference that nothing explains.
    """
    rows = [(*case, *size) for case in cases(pattern, tokens) for size in sizes]
    with ProcessPoolExecutor() as pool:
        table = pd.DataFrame(pool.map(cost_row, *zip(*rows, strict=True), chunksize=len(sizes)))
    table = table.merge(PUBLISHED, how="left", on="model")
    table["published_macs"] = table["published_macs"].where((table["height"] == 512) & (table["width"] == 2048))
    released = REFERENCE.groupby(["model", "tokens"], as_index=False)["released_parameters"].first()
    table = table.merge(released, how="left").merge(REFERENCE.drop(columns="released_parameters"), how="left", on=SAME)
    for column in ("published_parameters", "published_macs", "released_parameters", "released_macs"):
        table[f"{column}_percent"] = 100 * (table[column.partition("_")[2]] / table[column] - 1)
    if (table.filter(regex="^published.*percent").abs() > NOTABLE).any(axis=None):
        raise RuntimeError("a difference from the published figures that nothing explains")
    like = table[(table["behaviour"] == "released") | (table["tokens"] == 0)].set_index(SAME)
    reasons = [[row["why"], *(explain(what, row, like) for what in REASONS)] for _, row in table.iterrows()]
    table = table.drop(columns="why").assign(why=["; ".join(filter(None, row)) for row in reasons])
    table = table.astype({name: "Int64" for name in table if name.endswith("parameters")})
    table[[name for name in table if name.endswith("macs")]] /= 1e9
    return table.rename(columns=lambda name: name.replace("macs", "gmacs"))


def encoder_row(network: str, mixer: str | None, side: int) -> dict[str, object]:
    """Return parameters and gmacs of an encoder, and the mixer's and a simple pyramid's part of the latter."""
    tokens = None if mixer is None else 0 if acts_on_patches(mixer) else 10
    model = _model(f"{network}_upernet", **({"mixer": mixer, "num_global_tokens": tokens} if mixer else {}))
    macs = macs_by_module(model, side, side)
    parts = {"gmacs": macs["encoder"], "mixer_gmacs": by_component(macs)["g_msa"]}
    parts["pyramid_gmacs"] = macs.get("encoder.pyramid", 0)
    row = {"network": network, "mixer": mixer, "tokens": tokens, "side": side}
    row["parameters"] = sum(parameter.numel() for parameter in model.encoder.parameters())
    return row | {name: number / 1e9 for name, number in parts.items()}


def neighbours_cost(backbones: tuple[str, ...] = NEIGHBOURS, mixers: tuple[str, ...] = tuple(MIXERS)) -> pd.DataFrame:
    """Return one tidy row for each network, mixer and side: Swin-T, GLAM-Swin-T with each mixer, and the neighbours.

    ``gmacs`` are those of one square image, ``growth`` the exponent a in gmacs ~ pixels^a since the side before; those
    of a mixer are of the exchange alone. ``published_percent``, in rows of their own, is ours above theirs.
    """
    networks = [("swin_tiny", None), *product(["glam_swin_tiny"], mixers), *product(backbones, [None])]
    table = pd.DataFrame(encoder_row(*network, side) for network in networks for side in SIDES)
    logs = np.log(table[["side", "gmacs", "mixer_gmacs"]].where(lambda values: values > 0))
    steps = logs.groupby([table["network"], table["mixer"]], dropna=False).diff()
    table["growth"] = steps["gmacs"] / (2 * steps["side"])
    table["mixer_growth"] = steps["mixer_gmacs"] / (2 * steps["side"])
    authors = CLASSIFIERS[CLASSIFIERS.index.isin(backbones)]
    beside = pd.DataFrame([encoder_row(row.Index, None, row.height) for row in authors.itertuples()])
    beside["published_gmacs"], beside["published_source"] = authors["gmacs"].to_numpy(), authors["source"].to_numpy()
    beside["published_percent"] = 100 * ((beside["gmacs"] - beside["pyramid_gmacs"]) / beside["published_gmacs"] - 1)
    return pd.concat([table, beside], ignore_index=True).astype({"tokens": "Int64"})


if __name__ == "__main__":
    path = Path(sys.argv[1])
    table = {"cost": cost_table, "neighbours_cost": neighbours_cost}[path.stem]()
    write_whole(path, table.to_csv(index=False))

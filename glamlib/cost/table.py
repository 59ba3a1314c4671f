"""The cost study: parameters and multiply-adds of every named model, beside the published and the released figures.

python -m glamlib.cost.table RESULTS

- published: microsoft/Swin-Transformer README (ADE20K, UPerNet, 150 classes). Its "FLOPs" are multiply-adds at 512 x
  2048. The GLAM paper's tables were not available, so none of its figures are here.
- released: ``reference_costs.csv``, found by building and running themyrl/glam at 44abe55 with 150 classes. ``counter``
  names what counted: torch's, on the meta device, sees everything that runs; fvcore skips what no output depends on.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd
import torch

from glamlib.cost.count import COMPONENTS, count_macs, count_parameters
from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.models.config import ModelConfig
from glamlib.models.segmenter import Segmenter
from glamlib.released.parts import parts_of
from glamlib.zoo import MODELS, list_models, model_config

CLASSES = 150
TOKENS = (1, 5, 10, 15)  # a window; those of the released configurations
SIZES = ((256, 256), (512, 512), (1024, 1024), (512, 2048))  # height and width in pixels
PARTS = tuple(name for name in COMPONENTS if name != "backbone")  # which these models have not
KEY = ["model", "tokens", "behaviour", "height", "width"]  # one row each
COLUMNS = (
    *("model", "tokens", "behaviour", "classes", "height", "width"),
    *(column for what in ("parameters", "gmacs") for column in (what, *(f"{name}_{what}" for name in PARTS))),
    *("published_parameters", "published_parameters_percent", "published_gmacs", "published_gmacs_percent"),
    *("published_source", "released_parameters", "released_parameters_percent", "released_gmacs"),
    *("released_gmacs_percent", "released_counter", "why"),
)
NOTABLE = 0.5  # percent; larger differences are explained
PUBLISHED = {  # parameters, and gmacs at 512 x 2048
    "swin_tiny_upernet": (60_000_000, 945.0),
    "swin_small_upernet": (81_000_000, 1038.0),
    "swin_base_upernet": (121_000_000, 1188.0),
}
# Why a component of the paper's model costs more or less than the released one's
REASONS = {
    "parameters": {
        "g_msa": "no table of positions, and no G-MSA in a stage's last block, which nothing reads",
        "upsampling": "a norm of the skip in NLU, and a table of biases without rows that are out of reach",
    },
    "multiply-adds": {
        "mlp": "the MLP on tokens",
        "g_msa": "no G-MSA in a stage's last block, which nothing reads",
    },
}
# Why the released model costs more or less when it has the released behaviour here
UNUSED = "no weights that the released NLU holds and never uses"
UNSEEN = "the G-MSA of a stage's last block, which runs unread and which fvcore left out"
REFERENCE = pd.read_csv(Path(__file__).with_name("reference_costs.csv"), comment="#")


def cases(pattern: str = "*", tokens: tuple[int, ...] = TOKENS) -> Iterator[tuple[str, int, str]]:
    """Yield model, tokens a window (0 for Swin) and behaviour: as released, too, where the released code has it."""
    released = set(zip(REFERENCE["model"], REFERENCE["tokens"], strict=True))
    for name in list_models(pattern):
        if name.endswith("_linear") or not isinstance(MODELS[name], ModelConfig):
            continue
        for number in tokens if name.startswith("glam_") else (0,):
            yield name, number, "paper"
            if number and (name, number) in released:
                yield name, number, "released"


@lru_cache(maxsize=1)
def _model(config: ModelConfig) -> Segmenter:
    """Return the network of a configuration, without memory for its weights."""
    with torch.device("meta"):
        return Segmenter(config, CLASSES, parts=parts_of(config))


@cache
def parameters_of(config: ModelConfig) -> dict[str, int]:
    """Return parameters by component, and "total"."""
    return count_parameters(_model(config))


@cache
def macs_of(config: ModelConfig, height: int, width: int) -> dict[str, int]:
    """Return multiply-adds by component, and "total"."""
    return count_macs(_model(config), height, width)


def percent(ours: float, theirs: float) -> float:
    """Return the difference in percent of ``theirs``."""
    return 100 * (ours / theirs - 1)


def explain(what: str, ours: dict[str, int], released: dict[str, int], theirs: int, rest: str) -> str:
    """Return the reasons (above 0.1 %) of a difference, or nothing where it is below `NOTABLE` percent.

    Args:
        ours, released: by component and "total", of a model and of the same with the released behaviour.
        theirs: what the released code has.
        rest: why ``released`` is not that, or "".

    Raises:
        RuntimeError: the reasons do not add up to the difference, to the last parameter or multiply-add.
    """
    terms = {reason: ours[part] - released[part] for part, reason in REASONS[what].items()}
    terms |= {rest: released["total"] - theirs} if rest else {}
    total = ours["total"]
    if total - theirs != sum(terms.values()):
        raise RuntimeError(f"{what}: {total} and {theirs} differ by {total - theirs}, and the reasons say {terms}")
    if abs(percent(total, theirs)) <= NOTABLE:
        return ""
    unit, scale = ("M", 1e6) if what == "parameters" else ("G", 1e9)
    large = {reason: value for reason, value in terms.items() if abs(value) > 0.001 * theirs}
    return f"{what}: " + ", ".join(f"{reason} ({value / scale:+.2f} {unit})" for reason, value in large.items())


def cost_row(model: str, tokens: int, behaviour: str, height: int, width: int) -> dict[str, object]:
    """Return one row of the table. Where a released model cannot run at this size, ``why`` says so, without gmacs.

    Raises:
        RuntimeError: a difference from the published or released figures that nothing explains.
    """
    config = model_config(model, behaviour=behaviour, **({"num_global_tokens": tokens} if tokens else {}))
    row = {"model": model, "tokens": tokens, "behaviour": behaviour, "classes": CLASSES}
    row |= {"height": height, "width": width}
    reasons, parameters, macs = [], parameters_of(config), {}
    row |= {"parameters": parameters["total"]} | {f"{name}_parameters": parameters[name] for name in PARTS}
    try:
        macs = macs_of(config, height, width)
        row |= {"gmacs": macs["total"] / 1e9} | {f"{name}_gmacs": macs[name] / 1e9 for name in PARTS}
    except InputError as error:
        reasons.append(f"cannot run: {error}")
    if model in PUBLISHED:
        theirs = dict(zip(("parameters", "gmacs"), PUBLISHED[model], strict=True))
        if (height, width) != (512, 2048):
            del theirs["gmacs"]
        row |= {f"published_{name}": value for name, value in theirs.items()}
        row |= {f"published_{name}_percent": percent(row[name], value) for name, value in theirs.items()}
        row["published_source"] = "microsoft/Swin-Transformer README"
        if any(abs(row[f"published_{name}_percent"]) > NOTABLE for name in theirs):
            raise RuntimeError(f"a difference from the published figures that nothing explains: {row}")
    released = REFERENCE[(REFERENCE["model"] == model) & (REFERENCE["tokens"] == tokens)]
    like = replace(config, behaviour="released") if tokens else config
    for theirs in released["parameters"].head(1):
        row |= {"released_parameters": theirs, "released_parameters_percent": percent(row["parameters"], theirs)}
        rest = UNUSED if config.decoder == "unet_nlu" else ""
        reasons.append(explain("parameters", parameters, parameters_of(like), theirs, rest))
    for found in released.query("height == @height and width == @width").itertuples():  # one row or none
        theirs = found.multiply_adds
        row |= {"released_gmacs": theirs / 1e9, "released_gmacs_percent": percent(macs["total"], theirs)}
        row["released_counter"] = found.counter
        rest = UNSEEN if found.counter == "fvcore" else ""
        reasons.append(explain("multiply-adds", macs, macs_of(like, height, width), theirs, rest))
    return row | {"why": "; ".join(filter(None, reasons))}


def cost_table(pattern: str = "*", tokens: tuple[int, ...] = TOKENS) -> pd.DataFrame:
    """Return one tidy row for each of `KEY`: the cost of one image, by component, too.

    Beside it stand published and released figures where known, in percent how far ours are above them, and why, for
    every difference above `NOTABLE` percent.
    """
    rows = [cost_row(*case, *size) for case in cases(pattern, tokens) for size in SIZES]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    return table.astype({name: "Int64" for name in table if name.endswith("parameters")})


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]) / "tables" / "cost.csv", cost_table().to_csv(index=False))

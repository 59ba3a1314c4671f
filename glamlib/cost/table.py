"""The cost study: parameters and multiply-adds of every named model, beside the published and the released figures.

python -m glamlib.cost.table RESULTS

- published: microsoft/Swin-Transformer README (ADE20K, UPerNet, 150 classes). Its "FLOPs" are multiply-adds at 512 x
  2048. The GLAM paper's tables were not available, so none of its figures are here.
- released: ``reference_costs.csv``, found by building and running themyrl/glam at 44abe55 with 150 classes. ``counter``
  names what counted: torch's, on the meta device, sees everything that runs; fvcore skips what no output depends on.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import ceil
from pathlib import Path

import pandas as pd
import torch

from glamlib.cost.count import COMPONENTS, component, count_parameters, macs_by_module, own_macs
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
UNREAD = "no G-MSA in a stage's last block, which nothing reads"
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


def _model(config: ModelConfig) -> Segmenter:
    """Return the network of a configuration, without memory for its weights."""
    with torch.device("meta"):
        return Segmenter(config, CLASSES, parts=parts_of(config.behaviour))


@cache
def parameters_of(config: ModelConfig) -> dict[str, int]:
    """Return parameters by component, and "total"."""
    return count_parameters(_model(config))


@cache
def _own_macs(config: ModelConfig, height: int, width: int) -> dict[str, int]:
    return own_macs(macs_by_module(_model(config), height, width))


def macs_of(config: ModelConfig, height: int, width: int) -> dict[str, int]:
    """Return what `glamlib.cost.count.count_macs` does, in a fraction of the time.

    All blocks of a stage but the last cost the same, so two blocks a stage are counted, and the first is multiplied.
    """
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, macs in _own_macs(replace(config, depths=(2,) * len(config.depths)), height, width).items():
        first = re.match(r"(encoder\.layers|decoder\.layers_up)\.(\d+)\.blocks\.0\.", name)
        if first:
            number = int(first[2])
            level = number if first[1] == "encoder.layers" else len(config.depths) - 2 - number
            macs *= config.depths[level] - 1
        counts[component(name)] += macs
    return {"total": sum(counts.values())} | counts


def _stages(config: ModelConfig) -> list[tuple[int, int, int]]:
    """Return channels, blocks and level of every stage; a UNet's decoder mirrors all of the encoder's but the last."""
    encoder = [(config.embed_dim * 2**level, depth, level) for level, depth in enumerate(config.depths)]
    return encoder + (encoder[:-1] if config.decoder.startswith("unet") else [])


def parameter_terms(config: ModelConfig) -> dict[str, int]:
    """Return, derived by hand, each reason why a model has more (or fewer) parameters than the released one."""
    terms, stages, tokens = {}, _stages(config), config.num_global_tokens
    paper, window = config.behaviour == "paper", config.window_size
    if paper and tokens:
        table = sum((45 * tokens // 2**level) ** 2 * c for c, _, level in stages)
        terms["no table of positions"] = -table
        terms[UNREAD] = -sum(4 * c**2 + 4 * c for c, *_ in stages)
        terms["a norm before G-MSA"] = sum((depth - 1) * 2 * c for c, depth, _ in stages)
    if config.decoder == "unet_nlu":
        dims = [c for c, *_ in stages[1 : len(config.depths)]]  # what NLU starts from, level by level
        unused = sum((d * d // 2 + d // 2) + (2 * d * d + d) for d in dims)  # proj_shortcut, layers_patch_expand
        terms["no weights that the released NLU holds and never uses"] = -unused
        if paper:
            terms["a norm of the skip in NLU"] = sum(dims)
            rows = (4 * window - 1) ** 2 - (2 * window - 1) ** 2
            terms["no rows of NLU's bias table that are out of reach"] = -rows * sum(config.num_heads[: len(dims)])
    return terms


def macs_terms(config: ModelConfig, height: int, width: int, counter: str) -> dict[str, int]:
    """Return, derived by hand, each reason why a model has more (or fewer) multiply-adds than the released one."""
    mlp = unread = 0
    for c, depth, level in _stages(config):
        rows, columns = (ceil(side / (config.patch_size * 2**level)) for side in (height, width))
        windows = [ceil(side / min(side, config.window_size)) for side in (rows, columns)]
        n = config.num_global_tokens * windows[0] * windows[1]
        mlp += (depth - 1) * n * 8 * c**2
        unread += 4 * n * c**2 + 2 * n**2 * c
    terms = {"the MLP on tokens": mlp} if config.behaviour == "paper" else {}
    if config.behaviour == "paper" and counter != "fvcore":
        terms[UNREAD] = -unread
    if config.behaviour == "released" and counter == "fvcore":
        terms["the G-MSA of a stage's last block, which runs unread and which fvcore left out"] = unread
    return {term: macs for term, macs in terms.items() if macs}


def percent(ours: float, theirs: float) -> float:
    """Return the difference in percent of ``theirs``."""
    return 100 * (ours / theirs - 1)


def explain(what: str, ours: int, theirs: int, terms: dict[str, int]) -> str:
    """Return a clause with the reasons (above 0.1 %) of a difference, or nothing for one below `NOTABLE` percent.

    Raises:
        RuntimeError: the reasons do not add up to the difference, to the last parameter or multiply-add.
    """
    if ours - theirs != sum(terms.values()):
        raise RuntimeError(f"{what}: {ours} and {theirs} differ by {ours - theirs}, and the reasons say {terms}")
    if abs(percent(ours, theirs)) <= NOTABLE:
        return ""
    unit, scale = ("M", 1e6) if what == "parameters" else ("G", 1e9)
    large = {term: value for term, value in terms.items() if abs(value) > 0.001 * theirs}
    return f"{what}: " + ", ".join(f"{term} ({value / scale:+.2f} {unit})" for term, value in large.items())


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
    for theirs in released["parameters"].head(1):
        row |= {"released_parameters": theirs, "released_parameters_percent": percent(row["parameters"], theirs)}
        reasons.append(explain("parameters", row["parameters"], theirs, parameter_terms(config)))
    for found in released.query("height == @height and width == @width").itertuples():  # one row or none
        theirs = found.multiply_adds
        row |= {"released_gmacs": theirs / 1e9, "released_gmacs_percent": percent(macs["total"], theirs)}
        row["released_counter"] = found.counter
        terms = macs_terms(config, height, width, found.counter)
        reasons.append(explain("multiply-adds", macs["total"], theirs, terms))
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

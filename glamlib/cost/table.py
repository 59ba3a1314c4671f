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
from dataclasses import dataclass, replace
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
COLUMNS = tuple(name for name in COMPONENTS if name != "backbone")  # which these models have not
KEY = ["model", "tokens", "behaviour", "height", "width"]  # one row each
NOTABLE = 0.5  # percent; larger differences are explained
SWIN_README = "microsoft/Swin-Transformer README"
PUBLISHED = {"tiny": (60e6, 945.0), "small": (81e6, 1038.0), "base": (121e6, 1188.0)}  # parameters, G at 512 x 2048
UNREAD = "no G-MSA in a stage's last block, which nothing reads"
REFERENCE = pd.read_csv(Path(__file__).with_name("reference_costs.csv"), comment="#")


@dataclass(frozen=True)
class Case:
    """One model of the study; ``tokens`` a window, 0 for Swin."""

    model: str
    tokens: int
    behaviour: str = "paper"

    @property
    def config(self) -> ModelConfig:
        tokens = {"num_global_tokens": self.tokens} if self.tokens else {}
        return model_config(self.model, behaviour=self.behaviour, **tokens)

    @property
    def reference(self) -> pd.DataFrame:
        """The released code's rows of this model; none for what the released code does not have."""
        return REFERENCE[(REFERENCE["model"] == self.model) & (REFERENCE["tokens"] == self.tokens)]


def cases(pattern: str = "*", tokens: tuple[int, ...] = TOKENS) -> Iterator[Case]:
    """Yield the study's models: GLAM with each number of tokens, and as released where the released code has it."""
    for name in list_models(pattern):
        if name.endswith("_linear") or not isinstance(MODELS[name], ModelConfig):
            continue
        for number in tokens if name.startswith("glam_") else (0,):
            yield (case := Case(name, number))
            if number and len(case.reference):
                yield replace(case, behaviour="released")


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


def explain(what: str, unit: str, scale: float, ours: int, theirs: int, terms: dict[str, int]) -> str:
    """Return a clause with the reasons (above 0.1 %) of a difference, or nothing for one below `NOTABLE` percent.

    Raises:
        RuntimeError: the reasons do not add up to the difference, to the last parameter or multiply-add.
    """
    if ours - theirs != sum(terms.values()):
        raise RuntimeError(f"{what}: {ours} and {theirs} differ by {ours - theirs}, and the reasons say {terms}")
    if abs(percent(ours, theirs)) <= NOTABLE:
        return ""
    large = {term: value for term, value in terms.items() if abs(value) > 0.001 * theirs}
    return f"{what}: " + ", ".join(f"{term} ({value / scale:+.2f} {unit})" for term, value in large.items())


def percent(ours: float, theirs: float) -> float:
    """Return the difference in percent of ``theirs``."""
    return 100 * (ours / theirs - 1)


def _beside_published(case: Case, size: tuple[int, int], parameters: int, macs: int) -> dict[str, object]:
    """Return the published figures and the differences from them, where there are any; none is notable."""
    scale, _, decoder = case.model.removeprefix("swin_").partition("_")
    if decoder != "upernet" or scale not in PUBLISHED:
        return {}
    published, gmacs = PUBLISHED[scale]
    row = {"published_parameters": int(published), "published_parameters_percent": percent(parameters, published)}
    if size == (512, 2048):
        row |= {"published_gmacs": gmacs, "published_gmacs_percent": percent(macs / 1e9, gmacs)}
    if any(abs(value) > NOTABLE for name, value in row.items() if name.endswith("_percent")):
        raise RuntimeError(f"{case}: a difference from the published figures that nothing explains: {row}")
    return row | {"published_source": SWIN_README}


def _beside_released(case: Case, size: tuple[int, int], parameters: int, macs: int) -> dict[str, object]:
    """Return the released code's figures, the differences from them, and the reasons."""
    reference = case.reference
    if reference.empty:
        return {}
    config, theirs = case.config, int(reference["parameters"].iloc[0])
    row = {"released_parameters": theirs, "released_parameters_percent": percent(parameters, theirs)}
    reasons = [explain("parameters", "M", 1e6, parameters, theirs, parameter_terms(config))]
    at_size = reference[(reference["height"] == size[0]) & (reference["width"] == size[1])]
    for theirs, counter in zip(at_size["multiply_adds"], at_size["counter"], strict=True):  # one row or none
        row |= {"released_gmacs": theirs / 1e9, "released_gmacs_percent": percent(macs, theirs)}
        row["released_counter"] = counter
        reasons.append(explain("multiply-adds", "G", 1e9, macs, theirs, macs_terms(config, *size, counter)))
    return row | {"why": "; ".join(filter(None, reasons))}


def cost_row(case: Case, height: int, width: int) -> dict[str, object]:
    """Return one row of the table. Where a released model cannot run at this size, ``why`` says so, without gmacs."""
    config = case.config
    parameters = parameters_of(config)
    row = {"model": case.model, "tokens": case.tokens, "behaviour": case.behaviour, "classes": CLASSES}
    row |= {"height": height, "width": width, "parameters": parameters["total"]}
    row |= {f"{name}_parameters": parameters[name] for name in COLUMNS}
    try:
        macs = macs_of(config, height, width)
    except InputError as error:
        beside = _beside_released(case, (0, 0), parameters["total"], 0)
        return row | beside | {"why": "; ".join(filter(None, [f"cannot run: {error}", beside.get("why")]))}
    row |= {"gmacs": macs["total"] / 1e9} | {f"{name}_gmacs": macs[name] / 1e9 for name in COLUMNS}
    compared = case, (height, width), parameters["total"], macs["total"]
    return row | _beside_published(*compared) | _beside_released(*compared)


def cost_table(pattern: str = "*", tokens: tuple[int, ...] = TOKENS) -> pd.DataFrame:
    """Return one tidy row for each of `KEY`.

    Columns: `KEY`, classes, parameters and COMPONENT_parameters, gmacs and COMPONENT_gmacs of one image; published_ and
    released_ parameters and gmacs where known; _percent, ours above theirs; published_source, released_counter; why,
    for every difference above `NOTABLE` percent.
    """
    order = [*KEY[:3], "classes", *KEY[3:]]
    for quantity in ("parameters", "gmacs"):
        order += [quantity, *(f"{name}_{quantity}" for name in COLUMNS)]
    for source, last in (("published", "source"), ("released", "counter")):
        names = ("parameters", "parameters_percent", "gmacs", "gmacs_percent", last)
        order += [f"{source}_{name}" for name in names]
    rows = [cost_row(case, *size) for case in cases(pattern, tokens) for size in SIZES]
    table = pd.DataFrame(rows).reindex(columns=[*order, "why"])
    whole = [name for name in table if name.endswith("parameters")]
    return table.astype(dict.fromkeys(whole, "Int64"))


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]) / "tables" / "cost.csv", cost_table().to_csv(index=False))

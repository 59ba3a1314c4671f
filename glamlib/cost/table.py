"""The cost study: parameters and multiply-adds of every named model, beside the published and the released figures.

python -m glamlib.cost.table RESULTS

- published: microsoft/Swin-Transformer README (ADE20K, UPerNet, 150 classes). Its "FLOPs" are multiply-adds at 512 x
  2048. The GLAM paper's tables were not available, so none of its figures are here.
- released: ``reference_costs.csv``, found by building and running themyrl/glam at 44abe55 with 150 classes. ``counter``
  names what counted: torch's, on the meta device, sees everything that runs; fvcore skips what no output depends on.
"""

import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd
import torch

from glamlib.cost.count import COMPONENTS, count_macs, count_parameters
from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.models.config import ModelConfig
from glamlib.models.segmenter import Segmenter
from glamlib.released import parts_of
from glamlib.zoo import MODELS, list_models, model_config

CLASSES = 150
TOKENS = (1, 5, 10, 15)  # a window; those of the released configurations
SIZES = ((256, 256), (512, 512), (1024, 1024), (512, 2048))  # height and width in pixels
PARTS = tuple(name for name in COMPONENTS if name != "backbone")  # which these models have not
KEY = ["model", "tokens", "behaviour", "height", "width"]  # one row each
SAME = ["model", "tokens", "height", "width"]
NOTABLE = 0.5  # percent; larger differences are explained
PUBLISHED = pd.DataFrame(
    {
        "model": ["swin_tiny_upernet", "swin_small_upernet", "swin_base_upernet"],
        "published_parameters": [60e6, 81e6, 121e6],
        "published_macs": [945e9, 1038e9, 1188e9],  # at 512 x 2048
        "published_source": "microsoft/Swin-Transformer README",
    }
)
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
# Why the released model costs more or less when it has the released behaviour here
UNUSED = "no weights that the released NLU holds and never uses"
UNSEEN = "the G-MSA of a stage's last block, which runs unread and which fvcore left out"


def cases(pattern: str, tokens: tuple[int, ...]) -> Iterator[tuple[str, int, str]]:
    """Yield model, tokens a window (0 for Swin) and behaviour: as released, too, where the released code has it."""
    released = set(zip(REFERENCE["model"], REFERENCE["tokens"], strict=True))
    for name in list_models(pattern):
        if isinstance(MODELS[name], ModelConfig) and not name.endswith("_linear"):
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
def macs_of(config: ModelConfig, height: int, width: int) -> dict[str, int]:
    """Return multiply-adds by component, and "total"."""
    return count_macs(_model(config), height, width)


def cost_row(model: str, tokens: int, behaviour: str, height: int, width: int) -> dict[str, object]:
    """Return the counts of one row. Where a released model cannot run at this size, ``why`` says so, without macs."""
    config = model_config(model, behaviour=behaviour, **({"num_global_tokens": tokens} if tokens else {}))
    row = dict(zip(KEY, (model, tokens, behaviour, height, width), strict=True)) | {"classes": CLASSES, "why": ""}
    counts = {"parameters": count_parameters(_model(config))}
    try:
        counts["macs"] = macs_of(config, height, width)
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
    if what == "parameters" and row["model"].endswith("_nlu"):
        terms[UNUSED] = released[what] - theirs
    elif what == "macs" and row["released_counter"] == "fvcore":
        terms[UNSEEN] = released[what] - theirs
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
    table = pd.DataFrame(cost_row(*case, *size) for case in cases(pattern, tokens) for size in sizes)
    table = table.merge(PUBLISHED, how="left", on="model")
    table["published_macs"] = table["published_macs"].where((table["height"] == 512) & (table["width"] == 2048))
    released = REFERENCE.groupby(["model", "tokens"], as_index=False)["released_parameters"].first()
    table = table.merge(released, how="left").merge(REFERENCE.drop(columns="released_parameters"), how="left", on=SAME)
    for column in ("published_parameters", "published_macs", "released_parameters", "released_macs"):
        table[f"{column}_percent"] = 100 * (table[column.partition("_")[2]] / table[column] - 1)
    if (table.filter(regex="^published.*percent").abs() > NOTABLE).any(axis=None):
        raise RuntimeError("a difference from the published figures that nothing explains")
    like = table[(table["behaviour"] == "released") | (table["tokens"] == 0)].set_index(SAME)
    reasons = [
        (row["why"], explain("parameters", row, like), explain("macs", row, like)) for _, row in table.iterrows()
    ]
    table = table.drop(columns="why").assign(why=["; ".join(filter(None, row)) for row in reasons])
    table = table.astype({name: "Int64" for name in table if name.endswith("parameters")})
    table[[name for name in table if name.endswith("macs")]] /= 1e9
    return table.rename(columns=lambda name: name.replace("macs", "gmacs"))


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]) / "tables" / "cost.csv", cost_table().to_csv(index=False))

"""The table of the speed benchmark, from its groups, and what is read off it.

python -m glamlib.bench.speed_table GROUP.json ... --out results/tables/speed.csv
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from tyro.conf import Positional

from glamlib.errors import InputError
from glamlib.files import write_whole

EXCHANGES = {"gmsa": "G-MSA", "pooled": "pooled keys", "linear": "linear attention"}
SMALLEST = 256  # on smaller images what is fixed weighs too much


def join_groups(files: tuple[Path, ...]) -> pd.DataFrame:
    """Return the rows of all groups' files (`glamlib.bench.speed`), by part, pass and size.

    Raises:
        InputError: a file is missing or is not a group's.
    """
    rows = []
    for file in files:
        try:
            rows += json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not a group of the speed benchmark ({error})") from None
    return pd.DataFrame(rows).sort_values(["part", "pass", "size"], kind="stable", ignore_index=True)


def contender_label(row: pd.Series) -> str:
    """Return what a row of the table is called in figures and tables."""
    base = row["network"] == "base"
    if not row["tokens"]:
        return "Swin-B" if base else "Swin-T"
    label = f"{'Base, ' * base}{row['tokens']} token{'s' * (row['tokens'] > 1)}"
    if row["mixer"] != "gmsa":
        label += f", {EXCHANGES[row['mixer']]}"
    return label if row["behaviour"] == "paper" else f"{label}, no MLP on them"


def headline(table: pd.DataFrame, part: str = "encoder", networks: tuple[str, ...] = ("tiny",)) -> pd.DataFrame:
    """Return the rows that the figures are about: the paper's block, fused, in the smallest batch of the pass, from
    `SMALLEST` pixels on.
    """
    rows = table[(table["part"] == part) & (table["way"] == "fused") & (table["behaviour"] == "paper")]
    rows = rows[rows["size"] >= SMALLEST]
    smallest = rows.groupby("pass")["batch"].transform("min")
    return rows[(rows["batch"] == smallest) & rows["network"].isin(networks)]


def growth(pixels: pd.Series, values: pd.Series) -> float:
    """Return the exponent of a power law fitted to values against pixels: 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(pixels.to_numpy(float)), np.log(values.to_numpy(float)), 1)[0])


def crossing(sizes: pd.Series, quotients: pd.Series) -> float | None:
    """Return the image size where a quotient falls below 1 and stays there, by interpolation on log axes.

    None if it never does; the smallest size if it is below 1 from there on. The sizes rise.
    """
    logs = np.log(quotients.to_numpy(float))
    above = np.flatnonzero(logs >= 0)
    if len(above) == 0:
        return float(sizes.iloc[0])
    last = above[-1]
    if last == len(logs) - 1:
        return None
    low, high = np.log(sizes.iloc[last]), np.log(sizes.iloc[last + 1])
    return float(np.exp(low + (high - low) * logs[last] / (logs[last] - logs[last + 1])))


def speed_table(files: Positional[tuple[Path, ...]], out: Path) -> None:
    """Write the table.

    Args:
        files: one a group.
        out: the CSV file to write.
    """
    write_whole(out, join_groups(files).to_csv(index=False, float_format="%.5g"))


if __name__ == "__main__":
    try:
        tyro.cli(speed_table)
    except InputError as error:
        sys.exit(f"error: {error}")

"""What is read off the table of the speed benchmark (`glamlib.bench.speed`)."""

from pathlib import Path

import numpy as np
import pandas as pd

EXCHANGES = {"gmsa": "G-MSA", "pooled": "pooled keys", "linear": "linear attention"}


def configuration_label(row: pd.Series) -> str:
    """Return what a row of the table is called in figures and tables."""
    base = row["network"] == "base"
    if not row["tokens"]:
        return "Swin-B" if base else "Swin-T"
    label = f"{'Base, ' * base}{row['tokens']} token{'s' * (row['tokens'] > 1)}"
    if row["mixer"] != "gmsa":
        label += f", {EXCHANGES[row['mixer']]}"
    return label if row["behaviour"] == "paper" else f"{label}, no MLP on them"


def headline(table: pd.DataFrame, part: str = "encoder", networks: tuple[str, ...] = ("tiny",)) -> pd.DataFrame:
    """Return the rows that the figures are about: the paper's block, fused, from 256 pixels on."""
    rows = table[(table["part"] == part) & (table["way"] == "fused") & (table["behaviour"] == "paper")]
    return rows[(rows["size"] >= 256) & rows["network"].isin(networks)]


def beside_released(table: pd.DataFrame) -> pd.DataFrame:
    """Return time over Swin's by pass, size and tokens: ours, and the released code's (``released_timing.csv``)."""
    released = pd.read_csv(Path(__file__).with_name("released_timing.csv"), comment="#")
    swin = released.query("tokens == 0").drop(columns="tokens")
    released = released.query("tokens > 0").merge(swin, on=["pass", "size"], suffixes=("", "_swin"))
    released["released"] = released["seconds"] / released["seconds_swin"]
    ours = headline(table).query("mixer == 'gmsa'").rename(columns={"ratio": "ours"})
    columns = ["pass", "size", "tokens"]
    return ours[[*columns, "ours", "ratio_low", "ratio_high", "macs_ratio"]].merge(
        released[[*columns, "released"]], on=columns
    )


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

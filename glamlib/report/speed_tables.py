"""What is read off the table of the speed benchmark, and from which size on a linear exchange pays."""

import numpy as np
import pandas as pd

EXCHANGES = {"gmsa": "G-MSA", "pooled": "pooled keys", "linear": "linear attention"}


def headline(table: pd.DataFrame, part: str = "encoder", networks: tuple[str, ...] = ("tiny",)) -> pd.DataFrame:
    """Return the rows that the figures are about: the paper's block, fused, from 256 pixels on."""
    rows = table[(table["part"] == part) & (table["way"] == "fused") & (table["behaviour"] == "paper")]
    return rows[(rows["size"] >= 256) & rows["network"].isin(networks)]


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


def exchange_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the linear exchanges with 10 tokens, by size; ``label`` is the exchange's."""
    rows = headline(table).query("tokens == 10 and mixer != 'gmsa'").dropna(subset="exchange_ratio")
    return rows.assign(label=rows["mixer"].map(EXCHANGES)).sort_values("size")


def payoff(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each linear exchange and pass, from which image size on it is faster than G-MSA, and by how much.

    Faster by the median of the rounds; sizes from there on at which some round was slower are listed.
    """
    found = []
    for (name, direction), lines in exchange_rows(table).groupby(["label", "pass"], sort=False):
        start, last = crossing(lines["size"], lines["exchange_ratio"]), lines.iloc[-1]
        slower = lines[(lines["size"] >= (start or np.inf)) & (lines["exchange_ratio_high"] > 1)]["size"]
        row = {"exchange": name, "pass": direction, "faster from (px)": "never" if start is None else round(start)}
        row["time over G-MSA's"] = f"{last['exchange_ratio']:.2f} at {last['size']} px"
        found.append(row | {"but slower in some round at (px)": ", ".join(map(str, slower))})
    return pd.DataFrame(found)

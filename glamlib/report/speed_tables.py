"""What is read off the table of the speed benchmark, and what a linear exchange pays and gives up."""

from pathlib import Path

import numpy as np
import pandas as pd

from glamlib.report.statistics import paired_difference
from glamlib.report.tables import read_table

EXCHANGES = {"gmsa": "G-MSA", "pooled": "pooled keys", "linear": "linear attention"}
# Studies that train these exchanges on cue scenes, each at a size of its own.
ACCURACY_STUDIES = ("mixers_48", "mixers", "mixers_96")


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


def exchange_runs(results: Path) -> pd.DataFrame:
    """Return the runs of `EXCHANGES` on cue scenes of all sizes that have run; ``height`` is the side of the scenes."""
    tables = [table for name in ACCURACY_STUDIES if (table := read_table(results, name)) is not None]
    runs = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"variant": []})
    return runs[runs["variant"].isin(EXCHANGES)]


def accuracy_given_up(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mIoU of each linear exchange minus G-MSA's, paired by seed, at each size of scenes."""
    found = []
    for side, rows in runs.groupby("height") if len(runs) else ():
        for mixer, name in list(EXCHANGES.items())[1:]:
            gain = paired_difference(rows, mixer, "gmsa", "miou")
            found.append({"exchange": name, "side (px)": side} | gain._asdict())
    return pd.DataFrame(found)

"""The table of the speed benchmark, from its groups, and what is read off it.

python -m glamlib.study.speed_table GROUP.json ... --out results/tables/speed.csv
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from tyro.conf import Positional

from glamlib.errors import InputError

from .files import write_whole
from .tables import read_table

EXCHANGES = {"gmsa": "G-MSA", "pooled": "pooled keys", "linear": "linear attention"}
SMALLEST = 256  # on smaller images what is fixed weighs too much
# Studies that train these exchanges on cue scenes, each at a size of its own.
ACCURACY_STUDIES = ("mixers_48", "mixers", "mixers_96")


def join_groups(files: tuple[Path, ...]) -> pd.DataFrame:
    """Return the rows of all groups' files (`glamlib.study.speed`), by part, pass and size.

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


def exchange_accuracy(results: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the summaries' rows of `EXCHANGES` on cue scenes of all sizes, and the names of studies that have none.

    Columns: those of a study's summary (`glamlib.study.tables.summary_table`); ``height`` is the side of the scenes.
    """
    found = {name: read_table(results, f"{name}_summary") for name in ACCURACY_STUDIES}
    known = [summary[summary["variant"].isin(EXCHANGES)] for summary in found.values() if summary is not None]
    rows = pd.concat(known, ignore_index=True) if known else pd.DataFrame()
    return rows, [name for name, summary in found.items() if summary is None]


def when_it_pays(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each linear exchange and pass: from which size on it is faster than G-MSA, and by what.

    Faster by the median of the rounds; sizes from there on at which some round was not are named.
    """
    rows = headline(table)
    rows = rows[(rows["tokens"] == 10) & rows["exchange_ratio"].notna()]
    sentences = []
    for mixer, name in list(EXCHANGES.items())[1:]:
        for direction, lines in rows[rows["mixer"] == mixer].groupby("pass"):
            lines = lines.sort_values("size")
            start, last = crossing(lines["size"], lines["exchange_ratio"]), lines.iloc[-1]
            if start is None:
                where = "at no size measured"
            elif start == lines["size"].iloc[0]:
                where = "at every size measured"
            else:
                where = f"from about {start:.0f} pixels a side on"
            share = f"{last['exchange_ratio']:.2f} of its time at {last['size']} pixels"
            told = f"{name}, {direction}: faster than G-MSA {where} ({share})"
            doubtful = lines[(lines["exchange_ratio"] < 1) & (lines["exchange_ratio_high"] >= 1)]["size"]
            if start is not None and (doubtful >= start).any():
                told += f", but not in every round at {' and '.join(map(str, doubtful[doubtful >= start]))} pixels"
            sentences.append(told)
    return sentences


def what_it_costs_in_accuracy(rows: pd.DataFrame) -> list[str]:
    """Return a sentence for each linear exchange: its mIoU less G-MSA's, paired by seed, at each size of scenes."""
    sentences = []
    for mixer, name in list(EXCHANGES.items())[1:] if len(rows) else ():
        told = []
        for row in rows[rows["variant"] == mixer].sort_values("height").to_dict("records"):
            interval = f" ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})" if row["n"] > 1 else " (one seed)"
            told.append(f"{row['gain']:+.3f}{interval} at {row['height']} pixels")
        if told:
            sentences.append(f"{name}: mIoU against G-MSA's {', '.join(told)}")
    return sentences


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

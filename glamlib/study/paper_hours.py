"""How long the paper's runs would take: from timed steps, by multiply-adds where a network was not timed itself."""

import math

import pandas as pd

from .confirm import multiply_adds
from .parameters import RunParameters
from .recipe import ADE20K, CITYSCAPES

MEASURED, BY_MULTIPLY_ADDS = "measured", "by multiply-adds"


def paper_runs() -> list[RunParameters]:
    """Return all runs of the profile paper on ADE20K and Cityscapes."""
    return [run for study in (ADE20K, CITYSCAPES) for run in study.runs("paper")]


def decoder_of(model: str) -> str:
    """Return what comes last in a model's name: networks of one decoder are as fast by multiply-add, nearly."""
    return model.rpartition("_")[2]


def seconds_of_image(
    gmacs: float, model: str, tokens: int, size: tuple[int, int], steps: pd.DataFrame
) -> tuple[float, str]:
    """Return the seconds of an image in training and how they were told, from rows of `paper_speed`'s step table.

    Args:
        gmacs: multiply-adds, in 1e9, of the image.
        model, tokens, size: which network, how many global tokens a window (0: none), height and width.
        steps: rows of one device. The same network and size count as measured; else the time a multiply-add takes is
            that of the row of the same decoder with the most multiply-adds. NaN where there is none.
    """
    rows = steps[steps["seconds"].notna()]
    same = rows[
        (rows["model"] == model) & (rows["tokens"] == tokens) & (rows["height"] == size[0]) & (rows["width"] == size[1])
    ]
    if len(same):
        row = same.loc[same["images_per_second"].idxmax()]
        return 1 / row["images_per_second"], MEASURED
    rows = rows[rows["model"].map(decoder_of) == decoder_of(model)]
    if not len(rows):
        return math.nan, BY_MULTIPLY_ADDS
    row = rows.loc[rows["gmacs"].idxmax()]
    return gmacs / row["gmacs"] / row["images_per_second"], BY_MULTIPLY_ADDS


def paper_hours(steps: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run of the profile paper: its hours in one process of the device that ``steps`` is of."""
    told = []
    for run in paper_runs():
        like = steps[steps["precision"] == run.precision]
        tokens, size = run.overrides.get("num_global_tokens", 0), tuple(run.augment["crop_size"])
        gmacs = multiply_adds(run) / 1e9
        seconds, how = seconds_of_image(gmacs, run.model, tokens, size, like)
        told.append(
            {
                "study": run.study,
                "variant": run.variant,
                "model": run.model,
                "tokens": tokens,
                "height": size[0],
                "width": size[1],
                "gmacs": gmacs,
                "steps": run.steps,
                "batch_size": run.batch_size,
                "images_per_second": 1 / seconds,
                "hours": seconds * run.steps * run.batch_size / 3600,
                "how": how,
                "device": steps["device"].iloc[0],
            }
        )
    return pd.DataFrame(told)


def foretold_over_measured(steps: pd.DataFrame) -> pd.DataFrame:
    """Return timed rows with the seconds that the others of their decoder foretell, and the quotient of both.

    It tells how far hours "by multiply-adds" can be trusted. NaN where no other row has the decoder.
    """
    rows = steps.reset_index(drop=True)
    foretold = []
    for index, row in rows.iterrows():
        size = (row["height"], row["width"])
        others = rows[(rows.index != index) & (rows["precision"] == row["precision"])]
        found = seconds_of_image(row["gmacs"], row["model"], row["tokens"], size, others)[0]
        foretold.append(found * row["batch_size"])
    return rows.assign(foretold=foretold, quotient=pd.Series(foretold) / rows["seconds"])

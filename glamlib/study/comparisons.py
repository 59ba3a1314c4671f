"""Pairs of a study's variants as a reader meets them: the difference, its interval, and the verdict on "better"."""

from collections.abc import Iterable

import pandas as pd

from .claims import METRIC_NAMES, difference, verdict_of_gain
from .study import Study


def comparisons(study: Study, runs: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> str:
    """Return a Markdown list with a line for each pair (variant, other) of a study.

    A line gives the difference of the study's metric, paired by seed, with its 95 % interval, and the verdict on
    "variant is better than other" that follows from it; or says that the two have no seed in common.
    """
    lines = []
    for variant, other in pairs:
        what = f"- {study.variants[variant].label} against {study.variants[other].label}: "
        gain = difference(runs, variant, other, study.metric)
        if gain is None:
            lines.append(f"{what}no seed that both have run")
            continue
        interval = f"{gain.low:+.3f} to {gain.high:+.3f}" if gain.n > 1 else "one seed"
        verdict = verdict_of_gain(gain)
        lines.append(f"{what}{gain.mean:+.3f} {METRIC_NAMES[study.metric]} ({interval}): {verdict} as better")
    return "\n".join(lines)

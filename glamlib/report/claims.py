"""The paper's claims, what was measured about each, and a verdict that follows from the interval by rule.

MERGED: Pairs of a study's variants as a reader meets them: the difference, its interval, and the verdict on "better".
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from glamlib.report.statistics import Interval, paired_difference
from glamlib.studies.study import Study

METRIC_NAMES = {"miou": "mIoU", "dice": "Dice"}
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NOT_TESTED = "supported", "not supported", "not decided", "not tested here"


@dataclass(frozen=True)
class Claim:
    """One claim, what was measured, the verdict, and the interval it follows from (None where there is none)."""

    claim: str
    measured: str
    verdict: str
    interval: Interval | None = None


def verdict_of_gain(gain: Interval, least: float = 0.0) -> str:
    """Return the verdict on "better by more than ``least``": the whole interval above, the whole below, or neither."""
    if gain.n < 2:
        return UNDECIDED
    if gain.low > least:
        return SUPPORTED
    return NOT_SUPPORTED if gain.high < least else UNDECIDED


def difference(runs: pd.DataFrame | None, variant: str, other: str, column: str = "miou") -> Interval | None:
    """Return ``variant - other`` paired by seed, or None where either has no run."""
    if runs is None:
        return None
    values = {
        name: dict(zip(rows["seed"], rows[column], strict=True)) for name, rows in runs.groupby("variant", sort=False)
    }
    if variant not in values or other not in values:
        return None
    gain = paired_difference(values[variant], values[other])
    return gain if gain.n else None


def _words(gain: Interval, what: str, column: str = "miou") -> str:
    metric = METRIC_NAMES[column]
    if gain.n < 2:
        return f"{what}: {gain.mean:+.3f} {metric} in one seed, which has no interval"
    return (
        f"{what}: {gain.mean:+.3f} {metric} (95 % interval {gain.low:+.3f} to {gain.high:+.3f}, {gain.n} seeds, paired)"
    )


def _gain_claim(
    claim: str,
    runs: pd.DataFrame | None,
    variant: str,
    other: str,
    what: str,
    absent: str,
    column: str = "miou",
) -> Claim:
    gain = difference(runs, variant, other, column)
    if gain is None:
        return Claim(claim, absent, NOT_TESTED)
    return Claim(claim, _words(gain, what, column), verdict_of_gain(gain), gain)


def claims(
    context: pd.DataFrame | None,
    camvid: pd.DataFrame | None,
    cues: pd.DataFrame | None = None,
    hippocampus: pd.DataFrame | None = None,
    mixers: pd.DataFrame | None = None,
    brains: pd.DataFrame | None = None,
    tiny: pd.DataFrame | None = None,
    architectures: pd.DataFrame | None = None,
) -> list[Claim]:
    """Return every claim with its verdict, from the run tables of the studies (None where a study has no runs).

    Args:
        context, mixers: on cue scenes.
        camvid, tiny, architectures: on street scenes, the second at the paper's Tiny size.
        cues, hippocampus, brains: on volumes, generated and real.
    """
    no_scenes, no_streets = "the study on cue scenes has not run", "the CamVid data were not there"
    found = [
        _gain_claim(
            "Global tokens that meet in G-MSA give a window the context of the whole image.",
            context,
            "glam_2",
            "swin",
            "cue scenes, GLAM with 2 tokens against Swin at equal depth",
            no_scenes,
        ),
        _gain_claim(
            "It is the exchange between windows that does it, not the tokens.",
            context,
            "glam_2",
            "tokens_2",
            "cue scenes, 2 tokens with G-MSA against the same tokens without",
            no_scenes,
        ),
        _as_good_as(
            "With global tokens, windows do as well as full attention",
            context,
            "glam_2",
            "full",
            "cue scenes, GLAM with 2 tokens against full attention",
            no_scenes,
        ),
        _gain_claim(
            "More global tokens are better.",
            context,
            "glam_10",
            "glam_1",
            "cue scenes, 10 tokens against 1",
            no_scenes,
        ),
        _gain_claim(
            "GLAM improves Swin-UPerNet on street scenes (paper: Cityscapes; here: CamVid, Nano, random weights).",
            camvid,
            "glam_10",
            "swin",
            "CamVid test, GLAM with 10 tokens against Swin",
            no_streets,
        ),
        _gain_claim(
            "GLAM improves Swin-T + UPerNet on street scenes (paper: Cityscapes; here: CamVid, random weights).",
            tiny,
            "glam_10",
            "swin",
            "CamVid test at full resolution, GLAM-Swin-T with 10 tokens against Swin-T",
            "the study at the Tiny size needs its data and a GPU",
        ),
        _small_cost(camvid, context),
    ]
    found.append(
        _gain_claim(
            "Non-local upsampling improves the UNet's decoder.",
            architectures,
            "glam_unet_nlu",
            "glam_unet",
            "CamVid test, GLAM-UNet with NLU against patch expanding",
            no_streets,
        )
    )
    found.append(
        _as_good_as(
            "Beyond the paper: pooled tokens, whose cost is linear in the number of windows, do as well as G-MSA",
            mixers,
            "pooled",
            "gmsa",
            "cue scenes, attention to pooled tokens against G-MSA",
            "the study of mixers has not run",
        )
    )
    found.append(
        _gain_claim(
            "GLAM helps on volumes larger than a window.",
            cues,
            "glam_10",
            "nnformer",
            "cue volumes, GLAM-nnFormer with 10 tokens against nnFormer at equal depth",
            "the study on cue volumes has not run",
        )
    )
    found.append(
        _gain_claim(
            "GLAM improves nnFormer on real volumes (paper: BCV; here: hippocampus, Nano, random weights).",
            hippocampus,
            "glam_10",
            "nnformer",
            "hippocampus, GLAM-nnFormer with 10 tokens against nnFormer",
            "the hippocampus data were not there",
            "dice",
        )
    )
    found.append(
        _gain_claim(
            "GLAM helps to tell left from right in volumes far larger than a window.",
            brains,
            "glam_10",
            "nnformer",
            "brains with sides, GLAM-nnFormer with 10 tokens against nnFormer",
            "the study on brains needs its data and a GPU",
            "dice",
        )
    )
    for claim, why in (
        ("GLAM improves Swin on ADE20K and Cityscapes.", "needs the data sets, ImageNet weights and several GPUs"),
        ("GLAM improves nnFormer on BCV.", "needs the data set, which asks for a registration, and a GPU"),
    ):
        found.append(Claim(claim, why, NOT_TESTED))
    return found


def _as_good_as(
    claim: str, runs: pd.DataFrame | None, variant: str, other: str, what: str, absent: str, margin: float = 0.05
) -> Claim:
    """Return a claim of being no worse than by ``margin`` mIoU."""
    claim = f"{claim} (within {margin} mIoU)."
    gap = difference(runs, variant, other)
    if gap is None:
        return Claim(claim, absent, NOT_TESTED)
    return Claim(claim, _words(gap, what), verdict_of_gain(gap, -margin), gap)


def _small_cost(camvid: pd.DataFrame | None, context: pd.DataFrame | None) -> Claim:
    claim = "Global tokens cost little beside the model they are put into."
    runs, variant, name = (camvid, "glam_10", "CamVid") if camvid is not None else (context, "glam_2", "cue scenes")
    if runs is None:
        return Claim(claim, "no study has run", NOT_TESTED)
    cost = runs.drop_duplicates("variant").set_index("variant")
    if variant not in cost.index or "swin" not in cost.index:
        return Claim(claim, "no study has run", NOT_TESTED)
    ours, swin = cost.loc[variant], cost.loc["swin"]
    tokens = variant.removeprefix("glam_")
    measured = (
        f"{name}, {int(ours['height'])}x{int(ours['width'])} px: {ours['gmacs'] / swin['gmacs']:.2f} times Swin's "
        f"multiply-adds and {ours['parameters'] / swin['parameters']:.2f} times its parameters with {tokens} tokens a "
        f"window; G-MSA itself is {100 * ours['g_msa_gmacs'] / ours['gmacs']:.1f} % of the multiply-adds. "
        "No verdict: what is little is for the reader to say, and it grows with the image (see the cost notebook)."
    )
    return Claim(claim, measured, UNDECIDED)


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

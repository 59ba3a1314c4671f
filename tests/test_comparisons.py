"""Pairs of variants in words: the difference by hand, its verdict, and pairs that have not run."""

import pandas as pd

from glamlib import studies
from glamlib.report.claims import comparisons


def runs(metric: str, **values: list[float]) -> pd.DataFrame:
    rows = [
        {"variant": variant, "seed": seed, metric: value}
        for variant, scores in values.items()
        for seed, value in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_each_pair_has_a_line_with_its_interval_and_verdict() -> None:
    """Differences 0.1, 0.2 and 0.3: mean 0.2, deviation 0.1, so 0.2 -+ 4.302653 * 0.1 / sqrt(3)."""
    table = runs("miou", swin=[0.4, 0.4, 0.4], glam_10_high=[0.5, 0.6, 0.7], pvt_v2=[0.39, 0.39, 0.39], vit=[0.5])
    pairs = [("glam_10_high", "swin"), ("pvt_v2", "swin"), ("swin", "pvt_v2"), ("vit", "swin"), ("glam_10", "swin")]
    assert comparisons(studies.CAMVID_ARCHITECTURES, table, pairs).splitlines() == [
        "- 10 tokens at 1/4 and 1/8 only against Swin: +0.200 mIoU (-0.048 to +0.448): not decided as better",
        "- PVT v2 against Swin: -0.010 mIoU (-0.010 to -0.010): not supported as better",
        "- Swin against PVT v2: +0.010 mIoU (+0.010 to +0.010): supported as better",
        "- ViT (full attention) against Swin: +0.100 mIoU (one seed): not decided as better",
        "- GLAM, 10 tokens against Swin: no seed that both have run",
    ]


def test_volumes_are_compared_by_dice() -> None:
    table = runs("dice", nnformer=[0.5, 0.6], glam_10=[0.7, 0.8]).assign(miou=0.0)
    (line,) = comparisons(studies.VOLUMES_HIPPOCAMPUS, table, [("glam_10", "nnformer")]).splitlines()
    assert line.endswith("+0.200 Dice (+0.200 to +0.200): supported as better")

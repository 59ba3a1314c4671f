"""Figures that say what they show: units on the axes, whole marks, losses that can be compared."""

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from glamlib.report import figures
from glamlib.studies import CAMVID, CONTEXT, MIXERS, VOLUMES_HIPPOCAMPUS
from glamlib.studies.study import Study

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed() -> None:
    yield
    plt.close("all")


def curves(study: Study, losses: tuple[float, ...] = (1.6, 1.1, 0.9)) -> Figure:
    frame = pd.DataFrame({"step": [10, 20, 30], "loss": losses})
    return figures.training_curves(study, {variant: [frame] for variant in study.variants})


@pytest.mark.parametrize(
    ("study", "needles"),
    [
        (MIXERS, ("cross-entropy", "nats")),
        (CAMVID, ("cross-entropy", "nats", "UPerNet's with 0.4 of its auxiliary head's")),
        (VOLUMES_HIPPOCAMPUS, ("cross-entropy", "nats", "1 - Dice")),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_training_loss_says_what_it_is_of(study: Study, needles: tuple[str, ...]) -> None:
    """UPerNet's loss holds its auxiliary head's, so it is not a UNet's: a figure of both has to say so."""
    label = curves(study).axes[0].get_ylabel()
    for needle in needles:
        assert needle in label
    assert ("auxiliary" in label) == (study is CAMVID)


@pytest.mark.parametrize("losses", [(1.6, 1.1, 0.9), (3.0, 0.2, 0.02)], ids=str)
def test_a_loss_has_plain_numbers_on_its_axis(losses: tuple[float, ...]) -> None:
    figure = curves(MIXERS, losses)
    figure.canvas.draw()
    axis = figure.axes[0].yaxis
    told = [text.get_text() for text in axis.get_ticklabels()]
    assert [float(text) for text in told] == pytest.approx(list(axis.get_ticklocs()), rel=1e-3)
    assert not any(text.get_text() for text in axis.get_ticklabels(minor=True))


def scores(mean: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [{"variant": "swin", "label": "Swin", "n": 2, "miou": mean, "miou_low": 0.5, "miou_high": 1.0}]
    return pd.DataFrame({"variant": ["swin"] * 2, "miou": [mean, mean]}), pd.DataFrame(rows)


def test_a_mark_at_the_end_of_the_axis_is_whole() -> None:
    axes = figures.score_by_variant(CONTEXT, *scores(1.0)).axes[0]
    assert axes.get_xlim()[1] == 1.0
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert marks
    assert not any(line.get_clip_on() for line in marks)

"""Figures say what they show: units on the axes, intervals over seeds, losses that can be compared."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from glamlib.data.transforms import VOID
from glamlib.report import figures, pictures
from glamlib.report.looks import where_it_looks
from glamlib.studies import find_study
from glamlib.studies.study import Study
from glamlib.zoo import create_model

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed() -> None:
    yield
    plt.close("all")


def write_run(study: Study, results: Path, variant: str, seed: int = 0, loss: float = 3.0, **changes: object) -> None:
    """Write the record and the history of a run of the study's last profile."""
    run = replace(study.run(variant, seed, list(study.profiles)[-1]), **changes)
    bins = {"from_px": [0, 8], "to_px": [8, 16], "pixels": [4, 4], "found": [1.0, 1.0], "accuracy": [loss / 10] * 2}
    metrics = {"cue_chance": 0.5, "by_distance": bins}
    folder = results / "runs" / study.name / variant / f"seed-{seed}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"parameters": run.to_dict(), "metrics": metrics, "cost": {}}))
    history = pd.DataFrame({"step": [10, 20, 30], "loss": [loss, loss / 15, loss / 150]})
    history.to_csv(folder / "history.csv", index=False)


@pytest.mark.parametrize(
    ("study", "needle"),
    [
        (find_study("mixers"), "cross-entropy"),
        (find_study("camvid"), "UPerNet's with 0.4 of its auxiliary head's"),
        (find_study("volumes_hippocampus"), "1 - Dice"),
    ],
    ids=str,
)
def test_a_training_loss_says_what_it_is_of_in_plain_numbers(study, needle, tmp_path):
    """UPerNet's loss holds its auxiliary head's, so it is not a UNet's: a figure of both has to say so."""
    for variant in study.variants:
        write_run(study, tmp_path, variant)
    axes = figures.training_curves(study, tmp_path).axes[0]
    assert needle in axes.get_ylabel()
    assert ("class-balanced" in axes.get_ylabel()) == (study.name == "mixers")
    assert ("auxiliary" in axes.get_ylabel()) == (study.name == "camvid")
    axes.figure.canvas.draw()
    labels = [float(text.get_text()) for text in axes.yaxis.get_ticklabels()]
    assert labels == pytest.approx(list(axes.yaxis.get_ticklocs()), rel=1e-3)
    assert not any(text.get_text() for text in axes.yaxis.get_ticklabels(minor=True))


def test_figures_leave_out_the_runs_that_tables_leave_out(tmp_path):
    """A mean over old and new runs would contradict the table beside it."""
    study = find_study("context")
    for seed, steps in ((0, 8), (1, 8), (2, 4), (3, 4), (4, 4)):  # the last three are older
        write_run(study, tmp_path, "swin", seed, 3.0 if steps == 8 else 9.0, steps=steps)
    (curve,) = figures.training_curves(study, tmp_path).axes[0].lines
    assert curve.get_ydata()[0] == pytest.approx(3.0)
    lines = figures.accuracy_by_distance(study, tmp_path).axes[0].lines
    (course,) = (line.get_ydata() for line in lines if line.get_label() == "Swin")
    assert list(course) == pytest.approx([0.3, 0.3])


def test_curves_are_named_once_where_they_end():
    """Curves that coincide share a label; values may be missing, at the end or everywhere."""
    axes = plt.subplots()[1]
    for name, values in (("a", [0, 1, 2]), ("b", [0, 1, 2.001]), ("c", [1, 0, np.nan]), ("d", [np.nan] * 3)):
        axes.plot(values, label=name)
    figures.label_ends(axes)
    axes.figure.canvas.draw()
    assert sorted(text.get_text() for text in axes.texts) == ["a\n= b", "c"]
    ends = {text.get_text(): text.xy[1] for text in axes.texts}  # in fractions of the axes, with margins of 5 %
    assert ends == pytest.approx({"a\n= b": 2.1 / 2.2, "c": 0.1 / 2.2}, abs=1e-3)


def test_scores_have_their_means_and_intervals(tmp_path):
    (tmp_path / "tables").mkdir()
    rows = [("Swin", 0, 0.1), ("Swin", 1, 0.2), ("Swin", 2, 0.3), ("Full attention", 0, 1.0)]
    runs = pd.DataFrame(rows, columns=["label", "seed", find_study("context").metric])
    runs.assign(gmacs=0.5, height=4, width=4).to_csv(tmp_path / "tables" / "context.csv")
    axes = figures.score_by_variant(find_study("context"), tmp_path).axes[0]
    bar = next(line for line in axes.lines if np.ptp(line.get_xdata()) > 0)
    assert list(bar.get_xdata()) == pytest.approx([0, 0.2 + 4.3027 * 0.1 / 3**0.5], abs=1e-4)  # cut at 0
    marks = [np.nanmax(line.get_xdata()) for line in axes.lines if line.get_marker() not in ("|", "", "None", None)]
    assert marks == pytest.approx([0.2, 1.0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Swin", "Full attention"]
    assert "image of 4x4" in figures.score_against_cost(find_study("context"), tmp_path).axes[0].get_xlabel()


def test_slices_show_truth_beside_prediction(tmp_path):
    """Contours go around the labels, and each structure keeps its colour from panel to panel."""
    labels = np.zeros((1, 12, 10), np.uint8)
    labels[0, 2:6, 1:5], labels[0, 7:10, 6:9] = 1, 2
    folder = tmp_path / "runs" / find_study("volumes_cues").name / "nnformer" / "seed-0"
    folder.mkdir(parents=True)
    guess = np.where(labels == 1, 0, labels)  # structure 1 was missed
    labels[0, 11] = VOID  # neither drawn nor named
    np.savez(folder / "pictures.npz", images=labels * 60, labels=labels, predictions=guess)
    record = {"parameters": {"variant": "nnformer", "seed": 0}, "metrics": {}, "cost": {}, "classes": ["-", "a", "b"]}
    (folder / "record.json").write_text(json.dumps(record))
    figure = pictures.slices(find_study("volumes_cues"), tmp_path)
    nothing, truth, guess = (
        {tuple(line.get_edgecolor()[0]): tuple(line.get_paths()[0].get_extents().extents) for line in axes.collections}
        for axes in figure.axes
    )
    assert nothing == {}
    assert sorted(truth.values()) == [(0.5, 1.5, 4.5, 5.5), (5.5, 6.5, 8.5, 9.5)]  # x0, y0, x1, y1
    assert guess.items() < truth.items()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_look_names_the_pixel_in_the_photo_and_marks_it_in_the_resized_image():
    model = create_model("swin_nano_linear", num_classes=2).eval()
    figure = where_it_looks({"swin": model}, torch.zeros(3, 128, 192, dtype=torch.uint8), (100, 150), size=(64, 96))
    photo = figure.axes[0]
    assert photo.get_title() == "the pixel x=150, y=100\n(photo resized to 96 x 64 px)"
    assert photo.lines[0].get_xydata().tolist() == [[75.5, 50.5]]

"""Whole runs on volumes, from files to records, tables and figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nifti_files import save

from glamlib import studies
from glamlib.data.volume_sets import brain_labels
from glamlib.report import figures, tables
from glamlib.report.tables import read_table, run_table, write_tables
from glamlib.runs.records import read_record
from glamlib.runs.run import run_one
from glamlib.runs.saved_model import load_model
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import VOLUME_DATA

VOLUME_STUDIES = [name for name, study in studies.STUDIES.items() if study.dataset in VOLUME_DATA]


def add_case(images: Path, labels: Path, name: str, values: tuple[int, ...], size: tuple[int, int, int]) -> None:
    """Save an image whose grey values tell the label, and a label of blocks of all ``values``."""
    rng = np.random.default_rng(0)
    label = np.zeros(size, np.uint8)
    inner = label[2:-2, 2:-2, 2:-2]
    inner[:] = np.resize(np.repeat(values, 3), inner.shape[0])[:, None, None]
    save(images / f"{name}.nii.gz", 100 + label + rng.integers(0, 5, size))
    save(labels / f"{name}.nii.gz", label)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a hippocampus of ten cases and brains of three, in their layouts."""
    root = tmp_path / "data"
    for number in range(1, 11):
        size = (18 + number, 20, 22)  # w, h, d: they differ
        add_case(root / "hippocampus/imagesTr", root / "hippocampus/labelsTr", f"hippocampus_{number:03}", (1, 2), size)
    values = tuple(v for v, number in brain_labels(sides=True).numbers.items() if number)[:30]
    for name in ("1000", "1001", "1003"):
        add_case(root / "brains/images", root / "brains/labels", name, values, (40, 36, 34))
    (root / "brains/train.txt").write_text("1000\n1001\n")
    (root / "brains/test.txt").write_text("1003\n")
    monkeypatch.setenv("GLAM_DATA", str(root))
    return root


_TINY = {
    "volumes_cues": ({"size": 16, "num_shapes": 1, "cue_size": 3, "train": 6, "test": 2}, {}),
    "volumes_hippocampus": ({"limit": 3}, {"patch_size": [16, 16, 16]}),
    "volumes_brains": ({}, {"patch_size": [32, 32, 32]}),
}


def tiny(study: str, variant: str, profile: str, steps: int = 3) -> RunParameters:
    run = studies.STUDIES[study].run(variant, 0, profile)
    data, augment = _TINY[study]
    small = {"steps": steps, "batch_size": 2, "device": "cpu", "workers": min(run.workers, 1)}
    return replace(run, **small, data=run.data | data, augment=run.augment | augment)


@pytest.mark.usefixtures("data")
def test_a_run_again_is_the_same_bits(tmp_path):
    run = tiny("volumes_hippocampus", "glam_1", "quick")
    one, two = (run_one(run, tmp_path / name, tmp_path / f"{name}.safetensors") for name in "ab")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert read_record(one)["metrics"] == read_record(two)["metrics"]
    for name in ("history.csv", "pictures.npz"):
        assert one.with_name(name).read_bytes() == two.with_name(name).read_bytes()
    run_one(replace(run, seed=1), tmp_path / "c", tmp_path / "c.safetensors")
    weights = [load_model(tmp_path / f"{name}.safetensors").model.decoder.head.weight for name in "ac"]
    assert not torch.equal(*weights)


@pytest.mark.usefixtures("data")
def test_record_tables_and_figures_of_volumes(tmp_path):
    """From two runs' records to the table, the summary as a reader meets it, and every figure."""
    study = studies.VOLUMES_HIPPOCAMPUS
    metrics = {}
    for variant in ("nnformer", "glam_1"):
        path = run_one(tiny(study.name, variant, "quick", steps=2), tmp_path)
        record = read_record(path)
        record["metrics"]["dice_by_class"][1] = record["metrics"]["hd95_mm"] = None  # as where a structure is nowhere
        path.write_text(json.dumps(record))
        metrics[variant] = record["metrics"]
    runs = run_table(tmp_path, study).set_index("variant")
    for variant, found in metrics.items():
        row = runs.loc[variant]
        assert row["dice"] == found["dice"]
        assert np.isnan(row["hd95_mm"])
        assert row["undefined_hd95"] == found["undefined"]["hd95"]
        assert row["dice_anterior"] == found["dice_by_class"][0]
        assert np.isnan(row["dice_posterior"])
        assert [row[name] for name in ("depth", "height", "width")] == [16, 16, 16]
    write_tables(tmp_path, study)
    text = tables.summary_markdown(read_table(tmp_path, f"{study.name}_summary"), study)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [line[0] for line in lines[2:]] == ["nnFormer", "GLAM-nnFormer, 1 token"]
    assert lines[2][1] == f"{metrics['nnformer']['dice']:.3f}"
    assert lines[3][3] == f"{metrics['glam_1']['dice'] - metrics['nnformer']['dice']:+.3f}"
    assert lines[2][lines[0].index("HD95 (mm)")] == "undefined"
    for figure in (
        figures.score_by_variant(study, tmp_path),
        figures.score_by_class(study, tmp_path, "dice"),
        figures.slices(study, tmp_path),
    ):
        assert figures.save(figure, tmp_path, "figure").stat().st_size > 0

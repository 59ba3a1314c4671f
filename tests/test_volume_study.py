"""Whole runs on volumes, from files to records, tables and figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nifti_files import hippocampus

from glamlib import studies
from glamlib.report import figures, pictures, tables
from glamlib.report.tables import read_table, run_table, write_tables
from glamlib.runs.records import read_record
from glamlib.runs.run import run_one
from glamlib.runs.saved_model import load_model
from glamlib.studies.parameters import RunParameters


def tiny(root: Path, variant: str, steps: int = 3) -> RunParameters:
    """A run on small volumes of the hippocampus's layout, written below ``root``."""
    run = studies.find_study("volumes_hippocampus").run(variant, 0, "quick")
    data, small = run.data | {"limit": 3}, {"steps": steps, "batch_size": 2, "augment": {"patch_size": [16, 16, 16]}}
    return replace(run, root=str(hippocampus(root / "data")), data=data, device="cpu", **small)


def test_a_run_again_is_the_same_bits(tmp_path):
    run = tiny(tmp_path, "glam_1")
    one, two = (run_one(run, tmp_path / name, tmp_path / f"{name}.safetensors") for name in "ab")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert read_record(one)["metrics"] == read_record(two)["metrics"]
    for name in ("history.csv", "pictures.npz"):
        assert one.with_name(name).read_bytes() == two.with_name(name).read_bytes()
    run_one(replace(run, seed=1), tmp_path / "c", tmp_path / "c.safetensors")
    weights = [load_model(tmp_path / f"{name}.safetensors").model.decoder.head.weight for name in "ac"]
    assert not torch.equal(*weights)


def test_record_tables_and_figures_of_volumes(tmp_path):
    """From two runs' records to the table, the summary as a reader meets it, and every figure."""
    study = studies.find_study("volumes_hippocampus")
    metrics = {}
    for variant in ("nnformer", "glam_1"):
        path = run_one(tiny(tmp_path, variant, steps=2), tmp_path)
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
    figures.score_by_class(study, tmp_path, "dice")
    assert figures.save(pictures.slices(study, tmp_path), tmp_path, "figure").stat().st_size > 0


def test_cue_volumes_end_at_their_criterion(tmp_path):
    """With balanced classes and validation, as the study has it; one that guessing meets ends it at once."""
    run = studies.find_study("volumes_cues").run("glam_1", 0, "gpu")
    data = run.data | {"size": 32, "min_distance": 12, "train": 4, "val": 2, "test": 2}
    run = replace(run, data=data, steps=4, batch_size=2, warmup_steps=1, validate_every=2, stop_at=1e-9)
    path = run_one(run, tmp_path)
    metrics = read_record(path)["metrics"]
    assert metrics["steps_to_criterion"] == 2
    assert 0 < metrics["right_given_found"] <= 1

"""The learning rate of a study, chosen on validation data: which is taken, and when none is."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

# GONE glamlib.study.slot: slot
from glamlib import studies
from glamlib.runs import plan
from glamlib.runs.places import run_folder
from glamlib.runs.plan import with_chosen_rate
from glamlib.studies.parameters import RunParameters

# GONE glamlib.study.slot_order: in_order

SCORES = {  # 0.001 is the best for Swin, 0.0003 in the mean
    ("swin", 3e-4): 0.50,
    ("glam_10", 3e-4): 0.60,
    ("swin", 1e-3): 0.55,
    ("glam_10", 1e-3): 0.50,
    ("swin", 3e-3): 0.20,
    ("glam_10", 3e-3): 0.10,
}
RUN = studies.CAMVID_TINY.run("glam_5", 1, "gpu")


def record(results: Path, run: RunParameters, miou: float) -> None:
    folder = run_folder(results, run)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"parameters": run.to_dict(), "metrics": {"miou": miou}}))


def candidates() -> dict[tuple[str, float], RunParameters]:
    return {(run.variant.rpartition("_")[0], run.lr): run for run in studies.CAMVID_TINY_SCHEDULE.runs("gpu")}


def test_candidates_see_the_training_images_and_are_scored_on_the_validation_images() -> None:
    assert candidates().keys() == SCORES.keys()
    for run in candidates().values():
        assert (run.data["train"], run.data["test"]) == ("train", "val")
        assert replace(run, lr=1e-3, variant="swin", model="", overrides={}) == replace(
            candidates()[("swin", 1e-3)], variant="swin", model="", overrides={}
        )


def test_the_best_rate_in_the_mean_is_taken_by_every_variant_and_seed(tmp_path: Path) -> None:
    for place, (key, run) in enumerate(candidates().items()):
        assert with_chosen_rate(RUN, [tmp_path / "a", tmp_path / "b"]) == RUN  # not before all have run
        record(tmp_path / "ab"[place % 2], run, SCORES[key])
    assert RUN.lr == 1e-3
    for run in studies.CAMVID_TINY.runs("gpu"):
        assert with_chosen_rate(run, [tmp_path / "a", tmp_path / "b"]) == replace(run, lr=3e-4)


def test_a_candidate_of_other_parameters_does_not_count(tmp_path: Path) -> None:
    for key, run in candidates().items():
        record(tmp_path, replace(run, steps=run.steps - (key == ("swin", 3e-3))), SCORES[key])
    assert with_chosen_rate(RUN, [tmp_path]) == RUN


def test_a_study_without_a_schedule_keeps_its_rate(tmp_path: Path) -> None:
    run = studies.CONTEXT.run("swin", 0, "gpu")
    assert with_chosen_rate(run, [tmp_path]) == run


@pytest.mark.parametrize("study", ["camvid_tiny", "camvid_imagenet"])
def test_the_rate_that_the_table_names_is_among_the_candidates(study: str) -> None:
    """Until the candidates have run it is the one that counts."""
    found = studies.STUDIES[study]
    assert found.run("swin", 0, "gpu").lr in {run.lr for run in found.schedule.runs("gpu")}


def test_the_plan_takes_the_chosen_rate(tmp_path: Path) -> None:
    for key, run in candidates().items():
        record(tmp_path / "results", run, SCORES[key])
    plan.write_plan(tmp_path / "build", "gpu", [studies.CAMVID_TINY], 1, None, tmp_path / "results")
    planned = json.loads((tmp_path / "build/plan/camvid_tiny/swin/seed-0.json").read_text())
    assert planned["parameters"]["lr"] == 3e-4


def test_a_slot_takes_the_rate_as_soon_as_the_candidates_have_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def run_one(run: RunParameters, results: Path, **_: object) -> Path:
        taken.append(run)
        record(results, run, SCORES.get((run.variant.rpartition("_")[0], run.lr), 0.7))
        file = run_folder(results, run) / "record.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"train_seconds": 1.0}))
        return file

    monkeypatch.setattr(slot, "run_one", run_one)
    made = slot.Slot(1000, tmp_path / "out", tmp_path / "work")
    runs = in_order([studies.CAMVID_TINY, studies.CAMVID_TINY_SCHEDULE], "gpu")
    assert slot.fill(made, runs, [], "cpu") == []
    assert [run.study for run in taken] == ["camvid_tiny_schedule"] * 6 + ["camvid_tiny"] * 21
    assert {run.lr for run in taken[6:]} == {3e-4}
    with zipfile.ZipFile(tmp_path / "out" / slot.PARCEL) as archive:
        assert len(archive.namelist()) == 27  # the candidates' records go home, too

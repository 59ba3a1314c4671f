"""Records, files, executed notebooks: nothing half-written, one clear line for what is wrong."""

import json
import multiprocessing
import re
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from glamlib import studies
from glamlib.cost.count import COMPONENTS, Cost
from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.models.config import ModelConfig, VolumeConfig
from glamlib.models.conv_unet import ConvConfig
from glamlib.report.tables import run_table, side_accuracy, study_markdown, summary_table, write_tables
from glamlib.runs.places import computing_digest
from glamlib.runs.records import comparable, open_run_folder, read_pictures, read_record, read_records, write_record
from glamlib.studies.parameters import RunParameters
from glamlib.training.datasets import GENERATED
from glamlib.zoo import model_config

FORK = multiprocessing.get_context("fork")
RUN = studies.find_study("context").run("glam_2", 0, "quick")
METRICS = {
    **{"miou": 0.7, "iou": [0.9, float("nan"), 0.5], "pixel_accuracy": 0.9, "mean_accuracy": 0.8},
    **{"cue_accuracy": 0.5, "cue_chance": 0.5},
}


def record_of(results: Path, variant="glam_2", seed=0, miou=0.7, data="a", **changes: object) -> Path:
    run = replace(studies.find_study("context").run(variant, seed, "quick"), **changes)
    parts = dict.fromkeys(COMPONENTS, 0)
    return write_record(
        open_run_folder(results, run),
        run,
        metrics=METRICS | {"miou": miou, "right_given_found": miou},
        classes=("background", "cue 1", "cue 2"),
        cost=Cost(64, 64, {"total": 10} | parts, {"total": 0.5} | parts),
        history=[{"step": 10, "loss": 1.0, "lr": 0.1}],
        train_seconds=2.0,
        arrays={"erf": np.zeros((4, 4), np.float16)},
        data={"test": data},
    )


def test_record_names_what_made_it_and_is_valid_json(tmp_path):
    path = record_of(tmp_path)
    assert path == tmp_path / "runs/context/glam_2/seed-0/record.json"
    record = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["metrics"]["iou"] == [0.9, None, 0.5]
    assert RunParameters.from_dict(record["parameters"]) == RUN
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert record["commit"] == (head.stdout.strip() or None)  # None: outside a git clone
    assert record["versions"]["torch"].startswith("2.")
    assert record["device"]
    assert record["cost"]["height"] == 64
    assert record["seconds"] > 0
    assert (path.parent / "history.csv").read_text() == "step,loss,lr\n10,1.0,0.1\n"
    assert read_pictures(tmp_path, "context", "glam_2")["erf"].shape == (4, 4)
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [".lock", "history.csv", "pictures.npz", "record.json"]


def test_tables_by_hand(tmp_path):
    for seed, (swin, glam) in enumerate([(0.5, 0.8), (0.6, 0.8), (0.7, 0.8)]):
        record_of(tmp_path, "swin", seed, swin)
        record_of(tmp_path, "glam_2", seed, glam)
    write_tables(tmp_path, studies.find_study("context"))
    runs = run_table(tmp_path, studies.find_study("context"))
    assert list(runs["variant"]) == ["swin"] * 3 + ["glam_2"] * 3  # the study's order
    assert runs["miou"].dtype == np.float64
    summary = summary_table(runs, studies.find_study("context")).set_index("variant")
    assert summary.loc["glam_2", "gain"] == pytest.approx(0.2)
    assert np.isnan(summary.loc["swin", "gain"])
    assert not (tmp_path / "tables/context_others.csv").exists()
    record_of(tmp_path, "glam_2", 3, 0.1, steps=1)
    write_tables(tmp_path, studies.find_study("context"))
    table = study_markdown(tmp_path, studies.find_study("context"), "quick")
    assert "Left out, because they were made otherwise: glam_2/seed-3 (steps 20 -> 1)." in table
    assert "0.800" in table


@pytest.mark.parametrize(
    ("change", "said"), [({"steps": 1}, "steps 20 -> 1"), ({"data": "b"}, "data {'test': 'a'} -> {'test': 'b'}")]
)
def test_a_record_of_other_values_is_kept(tmp_path, capsys, change, said):
    record_of(tmp_path, miou=0.6)
    path = record_of(tmp_path, miou=0.7)  # the same values again: nothing to keep
    assert capsys.readouterr().out == ""
    path.with_name("best-old-1.safetensors").touch()  # of another run, whose number stays its own
    record_of(tmp_path, miou=0.8, **change)
    assert f"{said}: the old record is kept as record-old-2.json" in capsys.readouterr().out
    assert [read_record(file)["metrics"]["miou"] for file in (path, path.with_name("record-old-2.json"))] == [0.8, 0.7]
    assert path.with_name("history-old-2.csv").exists()
    assert len(read_records(tmp_path, "context")) == 1


def test_one_table_holds_runs_of_one_kind(tmp_path):
    for seed in range(3):
        record_of(tmp_path, "swin", seed)
        record_of(tmp_path, "glam_2", seed, **({"steps": 1} if seed == 1 else {"workers": seed}))
    record_of(tmp_path, "glam_5", 0, data="b")
    record_of(tmp_path, "glam_1", 0)
    record_of(tmp_path, "glam_1", 1, overrides={"num_global_tokens": 3})
    record_of(tmp_path, "glam_1", 2)
    kept, others = comparable(tmp_path, studies.find_study("context"))
    runs = [(one["parameters"]["variant"], one["parameters"]["seed"]) for one in kept]
    assert runs == [("swin", 0), ("swin", 1), ("swin", 2), ("glam_1", 0), ("glam_1", 2), ("glam_2", 0), ("glam_2", 2)]
    assert others[1] == "glam_2/seed-1 (steps 20 -> 1)"
    assert [line.split(" ")[0] for line in others] == ["glam_1/seed-1", "glam_2/seed-1", "glam_5/seed-0"]
    assert comparable(tmp_path, studies.find_study("mixers")) == ([], [])


def test_what_has_just_run_is_shown_and_not_the_more_numerous_old_runs(tmp_path):
    """Runs go seed by seed, so the first seed is the newest, in whatever number the old ones are."""
    for seed in range(12):
        record_of(tmp_path, "swin", seed, steps=20 if seed < 2 else 1)
        record_of(tmp_path, "glam_2", seed, steps=20 if seed < 2 else 1)
    kept, others = comparable(tmp_path, studies.find_study("context"))
    assert [one["parameters"]["steps"] for one in kept] == [20] * 4
    assert len(others) == 20


def test_copies_of_a_run_do_not_count(tmp_path):
    """Somebody makes a backup of a seed's folder, or of a variant's: it is no further run."""
    folder = record_of(tmp_path).parent
    shutil.copytree(folder, folder.with_name("seed-0-backup"))
    shutil.copytree(folder.parent, folder.parent.with_name("glam_2 (first try)"))
    write_tables(tmp_path, studies.find_study("context"))
    assert len(read_records(tmp_path, "context")) == 1


def test_a_score_that_is_not_there_does_not_make_the_others_one_seed(tmp_path):
    for seed, score in enumerate((0.6, 0.7, float("nan"))):
        record_of(tmp_path, "swin", seed, score)
    summary = summary_table(run_table(tmp_path, studies.find_study("context")), studies.find_study("context"))
    assert summary.loc[0, ["n", "right_given_found"]].tolist() == pytest.approx([2, 0.65])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"parameters": {}}'])
def test_broken_record_names_the_file(tmp_path, content):
    record_of(tmp_path).write_text(content)
    with pytest.raises(InputError, match=r"seed-0/record\.json: cannot be read as a run's record"):
        read_records(tmp_path, "context")


def test_a_second_process_is_told_and_one_that_was_killed_leaves_no_lock(tmp_path, monkeypatch):
    opened = FORK.Event()

    def other_process() -> None:
        open_run_folder(tmp_path, RUN)
        opened.set()
        time.sleep(60)

    first = FORK.Process(target=other_process)
    first.start()
    assert opened.wait(60)
    monkeypatch.setattr("glamlib.runs.records._PATIENCE", 0)
    with pytest.raises(InputError, match="glam_2/seed-0: another process is at work on this run; wait for it or"):
        record_of(tmp_path)
    first.kill()
    first.join()
    record_of(tmp_path)  # opens the folder
    record_of(tmp_path)  # and again: the record released it


def test_folders_that_cannot_be_written_are_one_clear_line(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*: (Not a directory|File exists)"):
        open_run_folder(tmp_path / "results", RUN)


def test_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path):
    """A real limit: a process that may write 1000 bytes a file writes 2000."""
    path = tmp_path / "a" / "table.csv"
    write_whole(path, "older")
    write_whole(path, "old")

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(InputError, match=re.escape(f"cannot write {path}: File too large")):
            write_whole(path, b"x" * 2000)

    process = FORK.Process(target=limited)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: signal.default_int_handler(signal.SIGINT, None))  # as by Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "table.csv", "new")
    assert list(tmp_path.iterdir()) == []


def test_sides_by_hand() -> None:
    """Of 10 voxels of A with the right structure 8 have the right side, of B 3 of 4; other errors do not count."""
    classes = ["background", "right a", "left a", "left b", "right b", "stem"]
    confusion = [[9, 1, 1, 0, 0, 0], [5, 3, 1, 0, 2, 0], [0, 1, 5, 7, 0, 0], [0, 0, 0, 2, 1, 0], [0, 4, 0, 0, 1, 0]]
    confusion.append([0, 0, 0, 0, 0, 6])
    assert side_accuracy(confusion, classes) == pytest.approx((8 / 10 + 3 / 4) / 2)
    for one in ("stem", "left kidney"):  # of a pair that is labelled on one side alone
        assert np.isnan(side_accuracy([[1, 0], [0, 1]], ["background", one]))


# Its records come from code whose decoders drew coarse levels too high; they are being run again. When the study is
# complete, the sentences on that in README, 05 and 15 go, too.
TO_RUN_AGAIN = {"camvid"}


def computed_the_same(record: dict) -> bool:
    """Tell whether a run's scores were the same bit for bit by the code that its ``first_code`` names.

    The last changes reach pictures, one's own data and several processes alone. Before, coarse levels did not keep
    their place: then a run had no such decoder, or one whose maps fill the image, where nothing is cut off.
    """
    run = record["parameters"]
    if record.get("first_code") in ("d625a98dbaa4a33c", "5e6a598a9cf1b98c"):
        return run["dataset"] not in ("folder", "volumes")
    config = model_config(run["model"], **run["overrides"])
    if not isinstance(config, ModelConfig) or config.decoder.startswith("unet"):
        return isinstance(config, ModelConfig | VolumeConfig | ConvConfig)
    stride = config.patch_size * 2 ** (len(config.depths) - 1)
    return run["dataset"] in GENERATED and run["data"]["size"] % stride == 0


def test_all_committed_records_are_of_the_present_code() -> None:
    """By the digest of the computing rooms, so figures and words do not matter.

    One made before, whose ``first_code`` names its own, must be one of those that a change since could not reach.
    """
    command = ["git", "ls-files", "results/*record.json"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.split()
    if not names:
        pytest.skip("this is no git clone, so it is not known which records are committed")
    records = [read_record(REPOSITORY / name) for name in names]
    again = [record for record in records if record["parameters"]["study"] in TO_RUN_AGAIN]
    assert {record["code"] for record in records if record not in again} == {computing_digest()}
    assert all(computed_the_same(record) for record in records if "first_code" in record)
    assert not all(computed_the_same(record) for record in again)

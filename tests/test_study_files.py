"""Records, whole files, plans, notebooks as make runs them: nothing half-written, one clear line for what is wrong."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from glamlib import studies
from glamlib.cost.count import COMPONENTS, Cost
from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.report.tables import run_table, summary_table, write_tables
from glamlib.runs import plan, provenance
from glamlib.runs.records import open_run_folder, read_pictures, read_record, read_records, write_record
from glamlib.studies.parameters import RunParameters

RUN = studies.CONTEXT.run("glam_2", 0, "quick")


def record_of(results: Path, variant: str, seed: int, miou: float) -> Path:
    run = studies.CONTEXT.run(variant, seed, "quick")
    parts = dict.fromkeys(COMPONENTS, 0)
    return write_record(
        open_run_folder(results, run),
        run,
        metrics={
            "miou": miou,
            "iou": [0.9, float("nan"), 0.5],
            "pixel_accuracy": 0.9,
            "mean_accuracy": 0.8,
            "cue_accuracy": 0.5,
            "cue_chance": 0.5,
        },
        classes=("background", "cue 1", "cue 2"),
        cost=Cost(64, 64, {"total": 10} | parts, {"total": 0.5} | parts),
        history=[{"step": 10, "loss": 1.0, "lr": 0.1}],
        train_seconds=2.0,
        arrays={"erf": np.zeros((4, 4), np.float16)},
    )


def test_record_names_what_made_it_and_is_valid_json(tmp_path: Path) -> None:
    path = record_of(tmp_path, "glam_2", 0, 0.7)
    assert path == tmp_path / "runs/context/glam_2/seed-0/record.json"
    record = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["metrics"]["iou"] == [0.9, None, 0.5]
    assert RunParameters.from_dict(record["parameters"]) == studies.CONTEXT.run("glam_2", 0, "quick")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert record["commit"] == head
    assert isinstance(record["dirty"], bool)
    assert record["versions"]["torch"].startswith("2.")
    assert record["device"]
    assert record["cost"]["height"] == 64
    assert (path.parent / "history.csv").read_text() == "step,loss,lr\n10,1.0,0.1\n"
    assert read_pictures(tmp_path, "context", "glam_2")["erf"].shape == (4, 4)
    assert sorted(file.name for file in path.parent.iterdir()) == ["history.csv", "pictures.npz", "record.json"]


def test_tables_by_hand(tmp_path: Path) -> None:
    for seed, (swin, glam) in enumerate([(0.5, 0.8), (0.6, 0.8), (0.7, 0.8)]):
        record_of(tmp_path, "swin", seed, swin)
        record_of(tmp_path, "glam_2", seed, glam)
    write_tables(tmp_path, "context")
    runs = run_table(tmp_path, "context")
    assert list(runs["variant"]) == ["swin"] * 3 + ["glam_2"] * 3  # the study's order
    assert runs["miou"].dtype == np.float64
    summary = summary_table(runs, "context").set_index("variant")
    assert summary.loc["glam_2", "gain"] == pytest.approx(0.2)
    # differences 0.3, 0.2, 0.1: deviation 0.1, t of 2 degrees of freedom at 97.5 % is 4.3027
    assert summary.loc["glam_2", "gain_high"] == pytest.approx(0.2 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert np.isnan(summary.loc["swin", "gain"])
    assert (tmp_path / "tables/context.csv").exists()
    assert (tmp_path / "tables/context_summary.csv").exists()


def test_results_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    path = record_of(tmp_path, "glam_2", 0, 0.7)
    other = json.loads(path.read_text())
    other["parameters"]["profile"] = "gpu"
    path.write_text(json.dumps(other))
    with pytest.raises(InputError, match=r"record\.json: a record of profile 'gpu', this run's is 'quick'"):
        open_run_folder(tmp_path, RUN)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"parameters": {}}'])
def test_broken_record_names_the_file(tmp_path: Path, content: str) -> None:
    path = record_of(tmp_path, "glam_2", 0, 0.7)
    path.write_text(content)
    with pytest.raises(InputError, match=r"seed-0/record\.json: not a run's record"):
        read_record(path)


def test_no_records_is_an_empty_list(tmp_path: Path) -> None:
    assert read_records(tmp_path, "context") == []


def test_results_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*: (Not a directory|File exists)"):
        open_run_folder(tmp_path / "results", RUN)


def test_read_only_folder_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(InputError, match=r"cannot write .*: Read-only file system"):
        open_run_folder(tmp_path, RUN)


def test_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    """A real limit: a process that may write 1000 bytes a file writes 2000."""
    path = tmp_path / "table.csv"
    path.write_text("old")
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from glamlib.files import write_whole\n"
        "from glamlib.errors import InputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_whole(Path(sys.argv[1]), b'x' * 2000)\n"
        "except InputError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"cannot write {path}: File too large"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_replaces(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b.txt", "one")
    write_whole(tmp_path / "a" / "b.txt", "two")
    assert (tmp_path / "a" / "b.txt").read_text() == "two"


def test_a_change_in_one_variant_changes_its_plans_alone(tmp_path: Path) -> None:
    study = studies.CONTEXT
    assert plan.write_plan(tmp_path, "cpu", [study], 2, None, tmp_path) == 2 * len(study.variants)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    changed = replace(study.variants["glam_5"], overrides={"num_global_tokens": 6})
    plan.write_plan(tmp_path, "cpu", [replace(study, variants=study.variants | {"glam_5": changed})], 2, None, tmp_path)
    rewritten = sorted(path.relative_to(tmp_path) for path, time in times.items() if path.stat().st_mtime_ns != time)
    assert rewritten == [Path(f"plan/context/glam_5/seed-{seed}.json") for seed in (0, 1)]


def test_comments_do_not_rerun_and_code_does() -> None:
    source = 'def f(x):\n    """Say."""\n    return x + 1\n'
    assert provenance.digest([source]) == provenance.digest(
        ['def f(x):  # why\n    """Say more."""\n\n    return (x + 1)\n']
    )
    assert provenance.digest([source]) != provenance.digest([source.replace("1", "2")])


def test_the_digest_holds_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("attend_backward" in source for source in provenance._kernels())
    before = provenance.whole_digest()
    monkeypatch.setattr(sources, "_kernels", lambda: ["int other;"])
    assert provenance.whole_digest() != before


def test_absent_data_are_left_out_of_all_and_an_error_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    generated = ["context", "decoders", "mixers", "release", "volumes_cues"]
    assert [study.name for study in plan.chosen_studies("all", "quick")] == generated
    with pytest.raises(InputError, match=f"study camvid: no folder camvid below GLAM_DATA={tmp_path}"):
        plan.chosen_studies("camvid", "quick")
    (tmp_path / "camvid").mkdir()
    assert [study.name for study in plan.chosen_studies("all", "quick")] == [
        *generated[:4],
        *("camvid", "camvid_architectures", generated[4]),
    ]


def run_module(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--profile", "huge"), "error: unknown profile 'huge'; allowed: quick, cpu, gpu, paper"),
        (
            ("--profile", "paper", "--study", "context"),
            "error: unknown profile of study context: 'paper'; allowed: quick, cpu, gpu",
        ),
        (
            ("--profile", "cpu", "--study", "contxt"),
            "error: unknown study 'contxt'; allowed: context, decoders, mixers, mixers_48, mixers_96, "
            "release, camvid, camvid_architectures, camvid_tiny_schedule, camvid_tiny, camvid_imagenet_schedule, "
            "camvid_imagenet, neighbours, volumes_cues, volumes_hippocampus, volumes_brains, ade20k, cityscapes",
        ),
        (("--profile", "cpu", "--seeds", "0"), "error: SEEDS=0: must be at least 1"),
    ],
)
def test_plan_refuses_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run_module("glamlib.runs.plan", *arguments, "--build", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip() == message


def test_planning_needs_no_torch() -> None:
    done = run_module("glamlib.runs.plan", "--help")
    assert done.returncode == 0
    program = "import sys, glamlib.runs.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 0


def test_unknown_parameter_stops_before_the_kernel(tmp_path: Path) -> None:
    done = run_module(
        "glamlib.runs.notebook", "notebooks/04_train.ipynb", str(tmp_path / "out.ipynb"), "--set", "lrr=1"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown parameter of 04_train.ipynb: 'lrr'; allowed: study, variant")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_failed_notebook_leaves_no_output_and_one_line(tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps({"parameters": RUN.to_dict() | {"lr": "1e-3"}}))
    output = tmp_path / "out.ipynb"
    done = run_module("glamlib.runs.notebook", "notebooks/04_train.ipynb", str(output), "--plan", str(plan_file))
    assert done.returncode == 1
    assert not output.exists()
    assert "parameter lr='1e-3': must be float, not str (in YAML write 1.0e-3, not 1e-3)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_train_notebook_writes_its_record(tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.json"
    small = RUN.to_dict() | {"steps": 2, "data": {"size": 64, "train": 4, "test": 2}, "batch_size": 2}
    plan_file.write_text(json.dumps({"parameters": small}))
    done = run_module(
        *("glamlib.runs.notebook", "notebooks/04_train.ipynb", str(tmp_path / "out.ipynb")),
        *("--plan", str(plan_file), "--set", f"results={tmp_path / 'results'}"),
    )
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "results/runs/context/glam_2/seed-0/record.json")
    assert record["parameters"] == small
    assert 0 <= record["metrics"]["miou"] <= 1


def test_execution_compiles_no_grammar_of_addresses() -> None:
    """An import of seconds that every run would pay; notebooks are validated all the same."""
    code = (
        "import sys, glamlib.runs.notebook, nbformat\n"
        "assert sys.modules.get('rfc3987_syntax') is None and 'lark' not in sys.modules\n"
        "notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('1')])\n"
        "nbformat.validate(notebook)\n"
        "notebook.cells[0].pop('source')\n"
        "try:\n"
        "    nbformat.validate(notebook)\n"
        "except nbformat.ValidationError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused"], done.stderr

"""What `make` is to run: plan files, and what is said on the way."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY, refused

from glamlib import studies
from glamlib.files import write_whole
from glamlib.runs import places, reproduce
from glamlib.runs.places import run_folder
from glamlib.runs.reproduce import unfinished, write_plan
from glamlib.studies.parameters import RunParameters


def record(results: Path, run: RunParameters, seconds: float) -> None:
    folder = run_folder(results, run)
    folder.mkdir(parents=True)
    content = {"parameters": run.to_dict(), "metrics": {"miou": 0.5}, "cost": {}, "seconds": seconds}
    content |= {"code": places.computing_digest()}
    (folder / "record.json").write_text(json.dumps(content))


def test_a_change_in_one_variant_changes_its_plans_alone(tmp_path, monkeypatch):
    study = studies.find_study("context")
    assert len(write_plan(tmp_path, "cpu", "context", 2)) == 2 * len(study.variants)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.name != "plan.mk"}
    changed = replace(study.variants["glam_5"], overrides={"num_global_tokens": 6})
    changed = replace(study, variants=study.variants | {"glam_5": changed})
    monkeypatch.setitem(studies.STUDIES, "context", changed)
    write_plan(tmp_path, "cpu", "context", 2)
    rewritten = sorted(path.relative_to(tmp_path) for path, time in times.items() if path.stat().st_mtime_ns != time)
    assert rewritten == [Path(f"plan/context/glam_5/seed-{seed}.json") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("file", "computes"),
    [
        ("glamlib/layers/windows.py", True),
        ("glamlib/backbones/sizes.csv", True),
        ("glamlib/runs/run.py", True),
        ("glamlib/runs/reproduce.py", False),
        ("glamlib/studies/studies.toml", False),
        ("glamlib/report/page.html", False),
        ("notebooks/14_train.ipynb", True),
        ("glamlib/layers/.ipynb_checkpoints/block-checkpoint.py", None),  # an editor's copy
    ],
)
def test_an_edit_of_what_computes_reruns_and_a_comment_does_not(tmp_path, monkeypatch, file, computes):
    monkeypatch.setattr(places, "ROOT", tmp_path)
    edited = tmp_path / file
    edited.parent.mkdir(parents=True)
    digests = []
    codes = ("def f():\n    return 1", 'def f():\n    """Say."""\n\n    return (1)  # why', "def f():\n    return 2")
    for content in codes:
        cells = {"cells": [{"cell_type": "code", "source": [content]}]}
        edited.write_text(json.dumps(cells) if edited.suffix == ".ipynb" else content)
        places.computing_digest.cache_clear()
        digests.append((places.computing_digest(), places.digest("glamlib")))
    places.computing_digest.cache_clear()
    assert (digests[0] == digests[1]) == (edited.suffix in (".py", ".ipynb"))
    assert (digests[0][0] != digests[2][0]) == bool(computes)
    assert (digests[0][1] != digests[2][1]) == (file.startswith("glamlib") and computes is not None)


def test_the_digest_is_the_same_under_a_python_whose_syntax_trees_have_more_lists(monkeypatch):
    """Functions and classes of Python 3.12 have type_params; 3.13 writes no empty list."""
    assert all((REPOSITORY / place).exists() for place in places.COMPUTES)  # one that is not there would not count
    before, dump, more = places.digest("glamlib/layers"), ast.dump, "type_params=[], decorator_list=["
    monkeypatch.setattr(ast, "dump", lambda tree: dump(tree).replace("decorator_list=[", more))
    assert places.digest("glamlib/layers") == before


def test_a_commit_is_the_projects_own(tmp_path, monkeypatch):
    """What lies beside the code does not change it; a copy inside another clone has none."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    code = tmp_path / "glamlib" / "a.py"
    code.parent.mkdir()
    code.touch()
    for command in (["init"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    (tmp_path / "slurm-1.out").touch()
    assert places.commit()["dirty"] is False
    code.write_text("x = 1")
    assert places.commit()["dirty"] is True
    monkeypatch.setattr(places, "ROOT", code.parent)
    assert places.commit() == {"commit": None, "dirty": None}


def test_absent_data_are_left_out_of_all_and_an_error_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLAM_DATA", str(tmp_path))
    generated = {"context", "legend", "legend_mixers", "decoders", "mixers", "release", "volumes_cues"}
    assert {study.name for study in reproduce.chosen_studies("all", "quick")} == generated
    chosen = reproduce.chosen_studies("context,decoders,context", "quick")
    assert [study.name for study in chosen] == ["context", "decoders"]
    for options, message in (
        ({"study": "camvid"}, f"of profile cpu: data are not below GLAM_DATA={tmp_path}: camvid (make camvid)"),
        ({"profile": "paper", "study": "context"}, "unknown profile of study context: 'paper'; allowed: quick, "),
        ({"seeds": 0}, "SEEDS=0: must be at least 1"),
        ({"profile": "night"}, ": camvid (make camvid), hippocampus (make hippocampus), brains (make brains)"),
    ):
        with refused(message):
            write_plan(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "camvid").mkdir()
    found = {study.name for study in reproduce.chosen_studies("all", "quick")}
    assert found - generated == {"camvid"}
    for file in ("leftImg8bit/train/a_leftImg8bit.png", "gtFine/train/a_gtFine_labelIds.png"):
        write_whole(tmp_path / "cityscapes" / file, "")
    write_plan(tmp_path, "paper")
    absent = "studies of camvid or ImageNet weights in weights/ (make camvid), ade20k (README)"
    runs = "79 runs of camvid_tiny, neighbours_tiny, cityscapes; left out, because their data are not there"
    fewer = f"{tmp_path / 'cityscapes'}: 1 pairs; Cityscapes train has 2975"
    assert capsys.readouterr().out == f"profile paper: {runs}: {absent}; {fewer}\n"
    assert (tmp_path / "plan.mk").read_text().count("/record.json") == 79


def test_the_time_left_is_estimated_by_the_finished_runs(tmp_path):
    study, results = studies.find_study("context"), tmp_path / "results"
    names = write_plan(tmp_path, "cpu", "context", 2)  # 22 runs
    waiting = unfinished(names, tmp_path, results)
    assert reproduce.time_left({}, waiting, jobs=2) == ""
    record(results, study.run("swin", 0, "cpu"), seconds=600.0)
    waiting = unfinished(names, tmp_path, results)
    assert waiting == [name for name in names if name != "context/swin/seed-0"]
    finished = {"context/swin/seed-0": 600.0}
    assert reproduce.time_left(finished, waiting, jobs=2) == ", about 105 min left"  # 21 * 10 / 2
    assert reproduce.time_left(finished, waiting, jobs=1) == ", about 4 h left"
    file = results / "runs/context/swin/seed-0/record.json"
    text = file.read_text()
    other = {places.computing_digest(): "0" * 16, '"steps": 600': '"steps": 5', '"train": 4000': '"train": 9'}
    for old, new in other.items():  # of other code, parameters, data
        assert old in text
        file.write_text(text.replace(old, new))
        assert unfinished(names, tmp_path, results) == list(names)
    file.write_text(text)
    os.utime(file, (0, 0))  # older than its plan: to be run again
    assert unfinished(names, tmp_path, results) == list(names)


# In place of Python: it notes what is called, and of runs writes the record alone
STAND_IN = """#!{python}
import json, os, pathlib, sys
arguments = sys.argv[1:]
with open("log.txt", "a") as log:
    print(*arguments, file=log)

def execute(notebook, output, run):
    print(run["study"], file=open("log.txt", "a"))
    folder = pathlib.Path(run["results"], "runs", run["study"], run["variant"], f"seed-{{run['seed']}}")
    folder.mkdir(parents=True, exist_ok=True)
    results = run.pop("results")
    record = folder / "record.json"
    content = {{"parameters": run, "metrics": {{"miou": 0.5}}, "cost": {{}}, "seconds": 1, "code": computing_digest()}}
    record.with_suffix(".new").write_text(json.dumps(content))
    record.with_suffix(".new").rename(record)

if "glamlib.runs.reproduce" in arguments:
    sys.path.insert(0, "")
    import tyro
    from glamlib.runs import reproduce
    from glamlib.runs.places import computing_digest
    reproduce.execute, reproduce.execute_all = execute, lambda work, jobs: [run() for run in work]
    tyro.cli(reproduce.main, args=arguments[2:])
if "glamlib.report.claims" in arguments:
    results, *studies = arguments[2:]
    tables = pathlib.Path(results, "tables")
    tables.mkdir(exist_ok=True)
    for study in studies:
        (tables / (study + ".csv")).touch()
"""


@pytest.mark.slow
def test_make_takes_names_with_spaces_and_then_starts_no_python(tmp_path):
    clone = tmp_path / "my clone"
    clone.mkdir()
    for name in ("Makefile", "glamlib", "notebooks"):
        (clone / name).symlink_to(REPOSITORY / name)
    (tmp_path / "my data" / "camvid").mkdir(parents=True)
    (clone / "my python").write_text(STAND_IN.format(python=sys.executable))
    (clone / "my python").chmod(0o755)
    variables = {"PROFILE": "night", "STUDY": "camvid,neighbours", "SEEDS": 1, "DEVICE": "cpu", "JOBS": 2}
    variables |= {"RESULTS": "my results", "GLAM_DATA": tmp_path / "my data", "PYTHON": "./my python"}
    command = ["make", "reproduce", *(f"{name}={value}" for name, value in variables.items())]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = (clone / "log.txt").read_text().splitlines()
    runs = [call for call in calls if call in ("camvid", "neighbours")]
    assert runs == [name for name in ("camvid", "neighbours") for _ in studies.find_study(name).variants]
    assert (clone / "my results/tables/neighbours.csv").exists()
    again = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert (clone / "log.txt").read_text().splitlines() == calls  # nothing has changed: nothing was started


def test_make_reads_a_home_folder_that_the_shell_left_as_it_is():
    command = ["make", "-n", "camvid", "GLAM_DATA=~/data", "PYTHON=python3"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert f'to="{Path.home()}/data/camvid"' in said


def test_make_clean_keeps_data_and_results(tmp_path):
    """Also data below build/ that are not named, or with a slash at the end."""
    (tmp_path / "Makefile").symlink_to(REPOSITORY / "Makefile")
    kept, gone = ("build/data", "build/mine/camvid", "results/runs"), ("build/cpu", "build/bench", "results/quick")
    for variables in ([], ["GLAM_DATA=build/mine/"]):
        for name in (*kept, *gone):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["make", "clean", *variables], cwd=tmp_path, capture_output=True, check=True)
        assert [name for name in (*kept, *gone) if (tmp_path / name).exists()] == [*kept]

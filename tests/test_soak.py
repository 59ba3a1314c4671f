"""Runs killed at random moments, beside another in one results folder, end with the bits of undisturbed ones."""

import json
import multiprocessing
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from glamlib import cli
from glamlib.runs import run

DATA = {"size": 32, "num_shapes": 1, "train": 8, "test": 3}
VALUES = ["steps=120", "warmup_steps=2", "batch_size=2", "checkpoint_every=3", f"data={json.dumps(DATA)}"]


def train(results: Path, seed: int, wait: float = 0.0) -> None:
    """The command line, but for a wait in every step, in which a kill meets a run."""
    named = ["--study", "context", "--variant", "glam_2", "--profile", "quick", "--seed", str(seed)]
    with pytest.MonkeyPatch.context() as patch:
        original = run.train
        patch.setattr(run, "train", lambda *a, **b: original(*a, **b, on_step=lambda step: time.sleep(wait)))
        assert cli.main(["train", "--out", str(results), *named, "--set", *VALUES]) == 0


def start(results: Path, seed: int) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["glamlib.cli"])
    process = context.Process(target=train, args=(results, seed, 0.03))
    process.start()
    return process


def outcome(results: Path, seed: int) -> tuple[str, dict, list[str]]:
    folder = results / f"runs/context/glam_2/seed-{seed}"
    record = json.loads((folder / "record.json").read_text())
    files = sorted(file.name for file in folder.glob("[!.]*"))  # one killed while it writes leaves a hidden file
    return (folder / "history.csv").read_text(), record["metrics"], files


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(tmp_path):
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    other = start(disturbed, 1)
    folder = disturbed / "runs/context/glam_2/seed-0"
    moments, resumed = np.random.default_rng(0), 0
    for _ in range(3):
        process = start(disturbed, 0)
        # From a resumed run's first step to its end: a second start of a finished run makes it again.
        while process.is_alive() and not (folder / "checkpoint.safetensors").exists():
            time.sleep(0.1)
        process.join(timeout=moments.uniform(0, 4))
        process.kill()
        process.join()
        resumed += (folder / "checkpoint.safetensors").exists()
    assert resumed
    for process in (start(disturbed, 0), other):
        process.join(timeout=900)
        assert process.exitcode == 0
    for seed in range(2):
        train(calm, seed)
        assert outcome(disturbed, seed) == outcome(calm, seed)

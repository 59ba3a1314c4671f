"""Runs killed at random moments, beside others in one results folder, end with the bits of undisturbed ones.

4 kills by default; GLAM_SOAK=1 makes them 20.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

KILLS = 20 if os.environ.get("GLAM_SOAK") else 4
DATA = {"size": 32, "num_shapes": 1, "train": 8, "test": 3}
VALUES = ["steps=120", "warmup_steps=2", "batch_size=2", "checkpoint_every=3", f"data={json.dumps(DATA)}"]
# The command line, but for a wait in every step: a run lasts longer than the start of a process.
PROGRAM = """
import sys, time
from glamlib import cli
from glamlib.runs import run
train = run.train
run.train = lambda *given, **named: train(*given, **named, on_step=lambda step: time.sleep(0.05))
sys.exit(cli.main())
"""


def start(results: Path, seed: int) -> subprocess.Popen:
    named = ["--study", "context", "--variant", "glam_2", "--profile", "quick", "--seed", str(seed)]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, "train", "--out", str(results), *named, "--set", *VALUES],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def ended(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said.decode()


def outcome(results: Path, seed: int) -> tuple[str, dict, list[str]]:
    folder = results / f"runs/context/glam_2/seed-{seed}"
    record = json.loads((folder / "record.json").read_text())
    return (folder / "history.csv").read_text(), record["metrics"], sorted(file.name for file in folder.iterdir())


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(tmp_path: Path) -> None:
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    others = [start(disturbed, seed) for seed in (1, 2)]
    checkpoint = disturbed / "runs/context/glam_2/seed-0/checkpoint.safetensors"
    moments, resumed = np.random.default_rng(0), 0
    for _ in range(KILLS):
        process = start(disturbed, 0)
        # From before the first step to the run's end: a second start of a finished run makes it again.
        try:
            process.wait(timeout=moments.uniform(5, 25))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        resumed += checkpoint.exists()
    assert resumed
    ended(start(disturbed, 0))
    for process in others:
        ended(process)
    for seed in range(3):
        ended(start(calm, seed))
        assert outcome(disturbed, seed) == outcome(calm, seed)

"""Several processes and micro-batches: the weights and counts of one process, nothing twice, exact resume, one writer.

On the CPU (gloo) batch normalisation knows its own process's part alone, so most networks here have none.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import python
from safetensors.torch import load_file
from test_training import RUN, cue_scenes, trained

from glamlib import studies
from glamlib.data.datasets import InMemory
from glamlib.errors import InputError
from glamlib.evaluation.evaluate import evaluate
from glamlib.training.checkpoint import read_checkpoint
from glamlib.training.loop import step_batches

EXACT = replace(
    RUN, overrides=RUN.overrides | {"drop_path": 0.0}, augment={}, batch_size=4, steps=3, warmup_steps=0, lr=1e-3
)
RANDOM = replace(RUN, batch_size=4, steps=6, checkpoint_every=3, accumulate=2)  # stochastic depth, augmentation
# In each of the processes: trains RANDOM, killing itself after step argv[2] (0: never), and without a break; trains
# EXACT, evaluates.
_PROGRAM = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, "tests")
from test_distributed import EXACT, RANDOM, counted, scenes, trained
from glamlib.evaluation.evaluate import is_main
folder, stop = Path(sys.argv[1]), int(sys.argv[2])
kill = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == stop else 0
trained(RANDOM, folder / "cut.safetensors", scenes(), on_step=kill)
trained(RANDOM, folder / "whole.safetensors", scenes())
counts, seen = counted(trained(EXACT, folder / "exact.safetensors", scenes())[0])
upernet = trained(replace(EXACT, model="swin_nano_upernet", overrides={}), folder / "norm.safetensors", scenes())[0]
normed = sum(buffer.double().sum().item() for buffer in upernet.buffers())
(folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps([counts.tolist(), seen, normed]))
"""


def scenes(count: int = 12) -> InMemory:
    """Scenes of which item i is known in its first 8 (i % 5) rows: every fifth has no valid pixel at all."""
    found = InMemory(cue_scenes(count))
    for index in range(count):
        found[index][1][8 * (index % 5) :] = 255
    return found


def counted(model: torch.nn.Module) -> tuple[np.ndarray, list[int]]:
    """Return the confusion matrix over five images, and the images that this process has predicted."""
    seen: list[int] = []
    confusion = evaluate(model, scenes(5), batch_size=2, on_image=lambda index, *_: seen.append(index))
    return confusion.compute().numpy(), seen


def launch(folder: Path, stop: int = 0) -> int:
    (folder / "program.py").write_text(_PROGRAM)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = python(*launcher, folder / "program.py", folder, stop)
    assert stop or done.returncode == 0, done.stderr[-3000:]
    return done.returncode


def largest_difference(one: Path, other: Path) -> float:
    a, b = load_file(one), load_file(other)
    return max(float((a[key] - b[key]).abs().max()) for key in a if key.startswith("model/"))


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """A kill between checkpoints, with micro-batches, stochastic depth, augmentation; then weights, loss, metrics."""
    assert launch(tmp_path, stop=5) != 0
    assert read_checkpoint(tmp_path / "cut.safetensors")[1]["step"] == 3
    launch(tmp_path)
    whole, cut = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)

    model, _ = trained(EXACT, tmp_path / "one.safetensors", scenes())
    two = tmp_path / "exact.safetensors"
    assert largest_difference(tmp_path / "one.safetensors", two) < 2e-5  # of some 1e-3 a step
    losses = [read_checkpoint(path)[1]["history"][-1]["loss"] for path in (tmp_path / "one.safetensors", two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)

    counts, _ = counted(model)
    (first, seen_first, normed), (second, seen_second, also_normed) = (
        json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)
    )
    assert (seen_first, seen_second) == ([0, 2, 4], [1, 3])
    assert (first, normed) == (second, also_normed)
    assert np.array(first).sum() == counts.sum() == 32 * 8 * (0 + 1 + 2 + 3 + 4)
    assert np.abs(np.array(first) - counts).sum() <= 0.01 * counts.sum()  # ties of nearly equal weights


def test_micro_batches_give_the_weights_of_the_whole_batch(tmp_path: Path) -> None:
    trained(EXACT, tmp_path / "whole.safetensors", scenes())
    trained(replace(EXACT, accumulate=4), tmp_path / "parts.safetensors", scenes())
    assert largest_difference(tmp_path / "whole.safetensors", tmp_path / "parts.safetensors") < 2e-5
    trained(replace(EXACT, seed=4), tmp_path / "other.safetensors", scenes())  # what a difference looks like
    assert largest_difference(tmp_path / "whole.safetensors", tmp_path / "other.safetensors") > 1e-2


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 3)])
def test_every_position_is_in_one_part_of_its_step(processes: int, accumulate: int) -> None:
    run = replace(RUN, steps=5, batch_size=12, accumulate=accumulate)
    ranks = [step_batches(run, 2, rank, processes) for rank in range(processes)]
    for step in range(3):
        parts = [part for batches in ranks for part in batches[step * accumulate : (step + 1) * accumulate]]
        assert {len(part) for part in parts} == {12 // (processes * accumulate)}
        assert sorted(position for part in parts for position in part) == list(range((step + 2) * 12, (step + 3) * 12))


def test_batches_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(InputError, match=r"batch_size=2: must be a multiple of 6 \(3 processes, accumulate=2\)"):
        step_batches(replace(RUN, accumulate=2), 0, processes=3)
    volumes = studies.find_study("volumes_cues").run("glam_1", 0, "quick")
    assert len(step_batches(volumes, 0)) == volumes.steps
    with pytest.raises(InputError, match="cue_volumes trains in one process"):
        step_batches(replace(volumes, accumulate=2), 0)

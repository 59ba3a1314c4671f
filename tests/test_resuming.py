"""Runs that go on: to the same bits, across what decides nothing, and what a checkpoint refuses."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_folder
from PIL import Image
from safetensors.torch import save_file
from test_training import RUN, VALIDATED, cue_scenes, trained, validated

from glamlib import create_model
from glamlib.data.datasets import InMemory, load_dataset
from glamlib.errors import InputError
from glamlib.training.checkpoint import read_checkpoint, restore
from glamlib.training.datasets import data_identity


class Cut(Exception):
    """Ends a training as a kill does."""


def cut_at(step: int) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if done == step:
            raise Cut

    return on_step


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        ({}, True),
        ({"workers": 1}, True),
        ({"checkpoint_every": 4}, True),
        ({"evaluate": {"flip": True}}, True),
        ({"accumulate": 2}, False),
        ({"device": "auto"}, False),
    ],
)
def test_run_goes_on_across_a_change_that_decides_nothing(change, exact, tmp_path, capsys):
    whole, history = trained(RUN, tmp_path / "whole.safetensors")
    with pytest.raises(Cut):
        trained(RUN, tmp_path / "cut.safetensors", on_step=cut_at(7))
    steps: list[int] = []
    resumed, resumed_history = trained(replace(RUN, **change), tmp_path / "cut.safetensors", on_step=steps.append)
    assert steps == list(range(6, 13))
    notes = [f"{name} {getattr(RUN, name)} -> " in capsys.readouterr().out for name in change]
    assert notes == [not exact] * len(change)
    assert len(resumed_history) == len(history)
    if exact:
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "count", "note"),
    [
        ({"lr": 5e-4, "steps": 14}, 12, "steps 12 -> 14, lr 0.001 -> 0.0005: starting again"),
        ({}, 13, "data contents {'items': 12, "),
    ],
)
def test_checkpoint_of_other_parameters_or_data_is_set_aside(change, count, note, tmp_path, capsys):
    checkpoint, run = tmp_path / "run.safetensors", replace(RUN, **change)
    for number in (1, 2):
        with pytest.raises(Cut):
            trained(RUN, checkpoint, on_step=cut_at(7))
        old = checkpoint.read_bytes()
        steps: list[int] = []
        after, _ = trained(run, checkpoint, InMemory(cue_scenes(count)), on_step=steps.append)
        assert steps == list(range(1, run.steps + 1))
        said = capsys.readouterr().out
        assert note in said
        assert f"the old checkpoint is kept as run-old-{number}.safetensors" in said
        assert (tmp_path / f"run-old-{number}.safetensors").read_bytes() == old
        checkpoint.unlink()
    fresh, _ = trained(run, tmp_path / "fresh.safetensors", InMemory(cue_scenes(count)))
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), fresh.parameters(), strict=True))


def test_data_are_told_by_their_contents(tmp_path):
    scenes = cue_scenes(100)
    assert data_identity(scenes)["items"] == 100
    assert data_identity(scenes) == data_identity(cue_scenes(100))
    assert data_identity(scenes) != data_identity(cue_scenes(100, seed=4))
    held = InMemory(scenes)
    before = data_identity(held)
    held[1][1][0, 0] += 1  # one pixel of one label
    assert data_identity(held) != before

    pair = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    write_folder(tmp_path, [pair] * 100, {"classes": ["a", "b"], "ignore_index": None})
    before = data_identity(load_dataset("folder", root=tmp_path))
    random = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(random).save(tmp_path / "images" / "10.png")  # the third, not among the items that are read
    assert data_identity(load_dataset("folder", root=tmp_path)) != before


def test_checkpoint_of_another_model_names_the_first_keys(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    trained(replace(RUN, steps=1), checkpoint)
    wider = create_model(RUN.model, num_classes=3, **RUN.overrides | {"embed_dim": 64})
    with pytest.raises(InputError, match=r"another model: .* size mismatch for encoder\.patch_embed") as error:
        restore(checkpoint, read_checkpoint(checkpoint)[0], wider, torch.optim.AdamW(wider.parameters()))
    assert "run.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", None, "[]", '{"step": 3, "history": []}', 0.02, 0.5, 0.99]
)
def test_an_unreadable_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "run.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, float):  # the place of a flipped bit
        trained(replace(RUN, steps=1), path)
        changed = bytearray(path.read_bytes())
        changed[int(content * len(changed))] ^= 1
        path.write_bytes(changed)
    else:  # no run's file; what earlier versions wrote
        save_file({"weight": torch.zeros(2)}, path, {"progress": content} if content else None)
    with pytest.raises(InputError, match=r"run\.safetensors: not a checkpoint .*; move it away to start again"):
        trained(replace(RUN, steps=1), path)


def test_validated_run_resumes_with_its_scores(tmp_path):
    _, history, _ = validated(VALIDATED, tmp_path / "whole.safetensors")
    with pytest.raises(Cut):
        validated(VALIDATED, tmp_path / "cut.safetensors", on_step=cut_at(9))
    _, resumed, later = validated(VALIDATED, tmp_path / "cut.safetensors")
    assert resumed == history
    scores = [row["val_right_given_found"] for row in history if "val_right_given_found" in row]
    assert len(later) == (scores[2] > max(scores[:2]))  # those of steps 4 and 8 are remembered

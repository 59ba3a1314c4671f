"""The speed benchmark: what it compares, what it counts, what is read off its table, and a run's hours by hand."""

import json
import os
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from glamlib.bench import speed, step
from glamlib.bench.peers import LIBRARIES
from glamlib.bench.speed import Configuration, Group, one_pass
from glamlib.cost.count import count_macs
from glamlib.errors import InputError
from glamlib.studies.parameters import RunParameters
from glamlib.zoo import create_model

SMALL = Group("encoder", "training", 64)


def nano(tokens: int, backend: str = "fused", library: str = "glamlib") -> Configuration:
    return Configuration(tokens, backend, network="nano", library=library)


def gradient(configuration: Configuration, group: Group) -> torch.Tensor:
    """The gradient of the first weights after one pass, no path dropped."""
    model, run = one_pass(configuration, group, "cpu")
    for module in model.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    model.zero_grad = lambda: None
    torch.manual_seed(1)
    run()
    return next(model.parameters()).grad


@pytest.mark.parametrize("backend", ["explicit", "bf16", "checkpointing"])
def test_all_backends_compute_the_same(backend):
    """The gradient of the first weights is the fused one's: to rounding, in bf16 nearly, bit for bit if recomputed."""
    expected, found = (gradient(nano(2, name), SMALL) for name in ("fused", backend))
    far = (found - expected).norm() / expected.norm()
    assert (far == 0) == (backend == "checkpointing")  # else it is not another way
    assert far < (0.2 if backend == "bf16" else 1e-4)


@pytest.mark.parametrize("backend", ["fused", "explicit"])
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_peers_compute_what_swin_does(library, backend):
    """Outputs and gradients at a size that whole windows fill; the transformers package is optional."""
    if library not in LIBRARIES:
        pytest.skip("transformers is not installed")
    group, x = Group("stages", "forward", 128), torch.randn(2, 3, 128, 128)
    ours, theirs = (one.build(group)(x) for one in (nano(0), nano(0, backend, library)))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    group = Group("stages", "training", 128)
    ours, theirs = (gradient(one, group) for one in (nano(0), nano(0, backend, library)))
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def _too_large() -> None:
    raise torch.OutOfMemoryError


@pytest.mark.slow
def test_memory_is_that_of_a_fresh_process():
    assert np.isnan(speed.apart(_too_large))
    assert 1 < speed.apart(speed.peak_mib, nano(10), SMALL, "cpu", 1) < 1000
    np.ones(2**26)  # 512 MiB, which the next of a process's runs does not hold
    assert speed.peak_memory_mib("cpu") > speed.peak_memory_mib("cpu") + 300


def test_measured_rows(monkeypatch):
    """A tiny group, whole: numbers are there, ratios are of Swin by the same backend, what does not fit has none."""
    listed = [nano(0), nano(0, "explicit"), nano(10, "explicit"), nano(10), nano(5)]
    monkeypatch.setattr(speed, "configurations", lambda *arguments: listed)
    monkeypatch.setattr(speed, "apart", lambda function, one, *_: np.nan if one.tokens == 5 else 100.0)
    rows = speed.measure(SMALL, "cpu", 1).set_index("tokens", drop=False)
    fits, large = rows.drop(index=5), rows.loc[5]
    assert fits.drop(columns=["commit", "dirty"]).notna().all(axis=None)
    assert (fits.loc[0, ["ratio", "ratio_low", "ratio_high", "macs_ratio"]] == 1).all(axis=None)
    assert (fits[fits["backend"] == "fused"]["backend_ratio"] == 1).all()
    assert large[["seconds", "ratio_low", "exchange_ratio", "peak_mib"]].isna().all()
    assert large["macs_ratio"] > 1


def test_each_is_timed_right_after_swin_so_that_a_slowing_machine_cancels(monkeypatch):
    """Every pass takes a tenth longer than the one before; the true quotients are 2 and 3."""
    cost, clock, passes = {0: 1.0, 10: 2.0, 5: 3.0}, [0.0], []

    def run(tokens: int) -> None:
        clock[0] += cost[tokens] * 1.1 ** len(passes)
        passes.append(tokens)

    monkeypatch.setattr(speed.benchmark, "timer", lambda: clock[0])
    runs = {Configuration(tokens): partial(run, tokens) for tokens in cost}
    pairs = speed.time_in_turn(runs, 2, 9)
    assert passes == [0, 10, 5] + [0, 10, 0, 5] * 2  # to warm up, then the fewest rounds
    for tokens, quotient in ((10, 2 * 1.1), (5, 3 * 1.1)):
        assert [after / before for after, before in pairs[Configuration(tokens)]] == pytest.approx([quotient] * 2)
    swin = pairs[Configuration(0)]
    assert [before for _, before in swin] == pytest.approx([1.1**number for number in (3, 5, 7, 9)])
    assert all(after == before for after, before in swin)


def test_finished_groups_are_not_timed_again(tmp_path, monkeypatch):
    timed, empty = [], {"part": "", "pass": "", "size": 0}
    monkeypatch.setattr(speed, "measure", lambda group, *_: timed.append(group) or pd.DataFrame([empty]))
    for threads in (2, 2, 1):
        speed.speed(tmp_path / "speed.csv", tmp_path, threads=threads)
    assert timed == speed.groups("cpu") * 2
    assert len(pd.read_csv(tmp_path / "speed.csv")) == len(speed.groups("cpu"))


def paper_run(variant: str, model: str, steps: int = 1000) -> RunParameters:
    values = {"study": "ade20k", "variant": variant, "seed": 0, "profile": "paper", "model": model}
    values |= {"dataset": "ade20k", "steps": steps, "batch_size": 16, "lr": 6e-5, "device": "cpu"}
    return RunParameters(**values, augment={"crop_size": [64, 64]})


def test_hours_by_hand(monkeypatch):
    """The smaller network is timed, 3 s a step of two images; the other, a neighbour, by its multiply-adds."""
    small, large = paper_run("a", "swin_nano_unet"), paper_run("b", "vit_nano_upernet", 2000)
    timed = []
    monkeypatch.setattr(step, "apart", lambda function, run, steps: timed.append(run.model) or 3.0)
    seconds = step.image_seconds([large, small], "cpu")
    assert timed == ["swin_nano_unet"]
    models = (create_model(run.model, num_classes=step.CLASSES) for run in (large, small))
    more, less = (count_macs(model, 64, 64)["total"] for model in models)
    ratio = more / less
    assert seconds == pytest.approx([1.5 * ratio, 1.5])
    assert step.listing([small, large], [1.0, float("nan")]).endswith("; without 1 that could not be timed here")
    _, first, _, last = step.listing([small, large], seconds[::-1]).splitlines()
    assert first.split() == ["ade20k", "a", "0", "1000", "16", f"{1.5 * 16000 / 3600:.1f}"]
    assert last == f"2 runs, {1.5 * 16 * (1000 + 2000 * ratio) / 3600:.0f} hours, one process each"


def test_a_training_step_is_timed():
    assert 0 < step.step_seconds(paper_run("a", "swin_nano_unet"), 2) < 30


def test_paper_asks_before_it_runs(tmp_path, monkeypatch, capsys):
    """Runs with a record newer than their plan are left out; without a terminal nothing is run."""
    plan = {f"ade20k/{variant}/seed-0": paper_run(variant, "swin_nano_unet") for variant in "ab"}
    for name in plan:
        for file in (tmp_path / "plan" / f"{name}.json", record := tmp_path / "runs" / name / "record.json"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"parameters": {}, "metrics": 1, "cost": 1, "code": 1}))
    os.utime(record, (1, 1))
    monkeypatch.setattr(step, "write_plan", lambda *arguments: plan)
    monkeypatch.setattr(step, "image_seconds", lambda runs, device: [1.0 for _ in runs])
    step.confirm(tmp_path, tmp_path, yes=True)
    said = capsys.readouterr().out
    assert all(part in said for part in ("1 runs, 4 hours", "ade20k       b"))
    with pytest.raises(InputError, match="YES=1"):
        step.confirm(tmp_path, tmp_path)
    os.utime(record)
    step.confirm(tmp_path, tmp_path)  # nothing is open, so nothing is asked

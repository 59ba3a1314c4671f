"""The speed benchmark: what it compares, what it counts, and what is read off its table."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from glamlib.errors import InputError
from glamlib.study import speed
from glamlib.study.matmul_rate import matmul_gflops
from glamlib.study.speed import one_pass
from glamlib.study.speed_contenders import Contender, Group, contenders
from glamlib.study.speed_table import crossing, growth, join_groups

SMALL = Group("encoder", "training", 64)


@pytest.mark.parametrize(
    "name", ["encoder", "encoder-both-64", "decoder-forward-64", "encoder-forward-x", "model-forward-8"]
)
def test_a_group_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match=f"'{name}': must be encoder or model"):
        Group.parse(name)


def test_groups_are_named_as_they_are_parsed():
    assert Group.parse(SMALL.name) == SMALL


@pytest.mark.parametrize("part", ["encoder", "model"])
@pytest.mark.parametrize("direction", ["forward", "training"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [256, 2048])
def test_every_way_of_glam_has_swin_to_compare_with(part, direction, device, size):
    listed = contenders(Group(part, direction, size), device)
    assert listed[0] == Contender(0)
    assert len(set(listed)) == len(listed)
    assert {Contender(0, contender.way) for contender in listed} <= set(listed)
    assert Contender(10) in listed


@pytest.mark.parametrize(
    ("part", "way"),
    [
        *(("encoder", way) for way in ("fused", "explicit", "bf16", "checkpointing")),
        *(("model", way) for way in ("explicit", "channels_last", "checkpointing")),
    ],
)
def test_all_ways_compute_the_same(way, part):
    """The gradient of the first weights is the fused one's: to rounding, and in bf16 nearly."""
    gradients = []
    for name in ("fused", way):
        model, run = one_pass(Contender(2, name), Group(part, "training", 64), "cpu", embed_dim=24)
        for module in model.modules():  # dropped paths are random
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
        model.zero_grad = lambda: None
        run()
        gradients.append(next(model.parameters()).grad)
    tolerance = 0.15 if way == "bf16" else 1e-4
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert difference < tolerance
    assert (difference > 0) == (way not in ("fused", "checkpointing")) or way == "channels_last"


@pytest.mark.slow
def test_measured_rows():
    """A tiny group, whole: numbers are there, and ratios are of Swin computed in the same way."""
    listed = [Contender(0), Contender(10), Contender(0, "explicit"), Contender(10, "explicit")]
    rows = pd.DataFrame(speed.measure(SMALL, listed, "cpu", 1, 2, {"fp32": 1.0, "bf16": 1.0}, 24))
    assert rows.drop(columns=["commit", "dirty"]).notna().all(axis=None)
    swin = rows[rows["tokens"] == 0]
    assert (swin[["ratio", "ratio_low", "ratio_high", "macs_ratio"]] == 1).all(axis=None)
    assert (rows[rows["way"] == "fused"]["way_ratio"] == 1).all()
    assert (rows["gflops"] * rows["seconds"]).to_numpy() == pytest.approx(2 * rows["gmacs"].to_numpy())
    assert (rows["peak_mib"] > 1).all()


@pytest.mark.slow
def test_a_group_from_the_command_line(tmp_path):
    """Only what is asked for, and the file whole."""
    out = tmp_path / "group.json"
    call = [sys.executable, "-m", "glamlib.study.speed", "model-forward-64", "--out", str(out)]
    subprocess.run([*call, "--rounds", "1", "--embed-dim", "24", "--ways", "fused"], check=True)
    rows = json.loads(out.read_text())
    assert [(row["tokens"], row["way"]) for row in rows] == [(0, "fused"), (10, "fused")]


def test_multiply_adds_of_a_group():
    """Swin-T's encoder alone at 224 x 224: the 4.5 G of its paper's table 1, less its classifier."""
    timed = speed.time_in_turn(Group("encoder", "forward", 224), [Contender(0)], "cpu", 1, 1, 96)
    assert timed["macs"][Contender(0)] / 1e9 == pytest.approx(4.5, abs=0.06)


def test_a_network_that_fails_is_left_out(monkeypatch):
    def refuse(contender, group, device, embed_dim):
        if contender.tokens:
            raise RuntimeError("can't allocate memory")
        return one_pass(contender, group, device, embed_dim)

    monkeypatch.setattr(speed, "one_pass", refuse)
    monkeypatch.setattr(speed, "_apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(speed, "peak_mib", lambda *arguments: 1.0)
    rows = pd.DataFrame(speed.measure(SMALL, [Contender(0), Contender(10)], "cpu", 1, 1, {"fp32": 1.0}, 24))
    assert rows["seconds"].isna().tolist() == [False, True]
    assert rows[["ratio", "peak_mib", "share"]].isna().all(axis=1).tolist() == [False, True]


def test_growth_is_the_exponent_of_a_power_law():
    pixels = pd.Series([1e4, 4e4, 9e4])
    assert growth(pixels, 3 * pixels**1.5) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("quotients", "expected"),
    [([2, 1.5, 1.1], None), ([0.9, 0.8, 0.7], 100), ([4, 1, 0.25], 200), ([2, 0.5, 0.25], 100 * 2**0.5)],
)
def test_crossing_by_hand(quotients, expected):
    found = crossing(pd.Series([100, 200, 400]), pd.Series(quotients))
    assert found == (None if expected is None else pytest.approx(expected))


def test_groups_join_in_order_or_name_the_bad_file(tmp_path):
    for size in (512, 256):
        rows = [{"part": "encoder", "pass": "forward", "size": size, "tokens": tokens} for tokens in (0, 10)]
        (tmp_path / f"{size}.json").write_text(json.dumps(rows))
    files = (tmp_path / "512.json", tmp_path / "256.json")
    assert join_groups(files)["size"].tolist() == [256, 256, 512, 512]
    assert join_groups(files)["tokens"].tolist() == [0, 10, 0, 10]
    with pytest.raises(InputError, match=r"none\.json: not a group"):
        join_groups((tmp_path / "none.json",))


def test_the_rate_of_matrix_products_is_numpys():
    """numpy multiplies by a library as good: the same within a factor of ten, on as many threads as it takes."""
    left = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    start = time.perf_counter()
    for _ in range(3):
        left @ left
    theirs = 3 * 2 * 1024**3 / (time.perf_counter() - start) / 1e9
    assert 0.1 < matmul_gflops("cpu") / theirs < 10

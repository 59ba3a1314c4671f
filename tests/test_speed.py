"""The speed benchmark: what it compares, what it counts, and what is read off its table."""

import json
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution, requires

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement

from glamlib.bench import speed
from glamlib.bench.speed import Contender, Group, contenders, matmul_gflops, one_pass
from glamlib.bench.speed_table import (
    crossing,
    growth,
    headline,
    join_groups,
)
from glamlib.cost.count import macs_by_module
from glamlib.errors import InputError

SMALL = Group("encoder", "training", 64)


@pytest.mark.parametrize(
    "name",
    [
        "encoder",
        "encoder-both-64",
        "decoder-forward-64",
        "encoder-forward-x",
        "model-forward-8",
        "encoder-forward-64-0",
    ],
)
def test_a_group_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match=f"'{name}': must be encoder or model"):
        Group.parse(name)


def test_groups_are_named_as_they_are_parsed():
    assert Group.parse(SMALL.name) == SMALL
    batch = Group("model", "training", 64, 8)
    assert batch.name == "model-training-64-8"
    assert Group.parse(batch.name) == batch


@pytest.mark.parametrize("part", ["encoder", "model"])
@pytest.mark.parametrize("direction", ["forward", "training"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [256, 512, 2048])
def test_every_way_of_glam_has_swin_to_compare_with(part, direction, device, size):
    listed = contenders(Group(part, direction, size), device)
    assert listed[0] == Contender(0)
    assert len(set(listed)) == len(listed)
    assert {Contender(0, contender.way, network=contender.network) for contender in listed} <= set(listed)
    assert Contender(10) in listed


def test_a_cpu_tries_compiled_blocks_and_torchs_kernel_where_they_tell_something():
    tried = {size: {c.way for c in contenders(Group("encoder", "forward", size), "cpu")} for size in (256, 512, 1024)}
    assert {size for size, ways in tried.items() if "compiled" in ways} == {512}
    assert {size for size, ways in tried.items() if "torch" in ways} == {512, 1024}
    assert "torch" not in {c.way for c in contenders(Group("encoder", "forward", 512), "cuda")}


@pytest.mark.parametrize(
    ("part", "way"),
    [
        *(("encoder", way) for way in ("fused", "torch", "explicit", "bf16", "checkpointing")),
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
    assert (difference > 0) == (way not in ("fused", "torch", "checkpointing")) or way == "channels_last"


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
    call = [sys.executable, "-m", "glamlib.bench.speed", "model-forward-64", "--out", str(out)]
    subprocess.run([*call, "--rounds", "1", "--embed-dim", "24", "--ways", "fused"], check=True)
    rows = json.loads(out.read_text())
    assert [(row["tokens"], row["way"]) for row in rows] == [(0, "fused"), (10, "fused")]


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


def test_each_is_timed_right_behind_swin_so_that_a_slowing_machine_cancels(monkeypatch):
    """Every pass takes a tenth longer than the one before; the true quotients are 2 and 3. By hand, in units of a first
    pass of Swin: 1, 2 * 1.1, 1.1**2, 3 * 1.1**3 in round one."""
    cost = {0: 1.0, 10: 2.0, 5: 3.0}
    clock, passes = [0.0], []

    def one_pass(contender, group, device, embed_dim):
        def run():
            clock[0] += cost[contender.tokens] * 1.1 ** len(passes)
            passes.append(contender.tokens)

        return None, run

    monkeypatch.setattr(speed, "one_pass", one_pass)
    monkeypatch.setattr(speed, "macs_by_module", lambda *arguments: {"": 1})
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    swin, ten, five = (Contender(tokens) for tokens in (0, 10, 5))
    timed = speed.time_in_turn(SMALL, [swin, ten, five], "cpu", 1, 2, None)
    assert passes == [0, 10, 5] + [0, 10, 0, 5] * 2  # to warm up, then two rounds
    for contender, quotient in ((ten, 2), (five, 3)):
        ratios = [a / b for a, b in zip(timed["seconds"][contender], timed["beside"][contender], strict=True)]
        assert ratios == pytest.approx([quotient * 1.1] * 2)
    assert timed["seconds"][swin] == pytest.approx([(1.1**3 + 1.1**5) / 2, (1.1**7 + 1.1**9) / 2])


def test_growth_is_the_exponent_of_a_power_law():
    pixels = pd.Series([1e4, 4e4, 9e4])
    assert growth(pixels, 3 * pixels**1.5) == pytest.approx(1.5)


def test_figures_are_about_the_papers_block_in_its_smallest_batch_from_256_pixels_on():
    row = {"part": "encoder", "pass": "forward", "size": 256, "batch": 1, "way": "fused", "behaviour": "paper"}
    row |= {"network": "tiny"}
    others = [{"size": 64}, {"batch": 4}, {"way": "compiled"}, {"behaviour": "no_token_mlp"}, {"network": "base"}]
    table = pd.DataFrame([row, *(row | other for other in others)])
    assert headline(table).index.tolist() == [0]


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


def test_it_needs_nothing_that_only_the_study_wants():
    """Imported where the packages of the extra `study` are missing, but for those that others bring along."""
    found = {}
    for line in requires("glamlib"):
        wanted = Requirement(line)
        found.setdefault(wanted.marker is not None, set()).add(wanted.name.lower())
    brought, todo = set(), list(found[False])
    while todo:
        name = todo.pop()
        if name not in brought and (distribution := _distribution(name)):
            brought.add(name)
            lines = map(Requirement, distribution.requires or [])
            todo += [r.name.lower() for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})]
    absent = sorted(found[True] - brought)
    assert {"tyro", "fvcore", "matplotlib"} <= set(absent)
    code = f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n" + (
        "from glamlib.bench.speed import Contender, Group, contenders, measure\n"
        "from glamlib.bench.speed import time_in_turn\n"
        "timed = time_in_turn(Group('encoder', 'forward', 64), [Contender(0)], 'cpu', 1, 1, 24)\n"
        "assert timed['macs'][Contender(0)] > 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _distribution(name):
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def test_swin_of_the_same_size_must_be_listed():
    with pytest.raises(InputError, match=r"network=.base.*nothing to be compared with"):
        speed.measure(SMALL, [Contender(0), Contender(10, network="base")], "cpu", 1, 1, {"fp32": 1.0})


def test_memory_alone(monkeypatch):
    monkeypatch.setattr(speed, "_apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(speed, "peak_mib", lambda *arguments: 1.0)
    (row,) = speed.measure(SMALL, [Contender(0)], "cpu", 1, 0, {"fp32": 1.0}, 24)
    assert row["peak_mib"] == 1.0
    assert np.isnan(row["seconds"])
    assert row["macs_ratio"] == 1


@pytest.mark.parametrize(("network", "gmacs"), [("tiny", 4.5), ("base", 15.4)])
def test_networks_are_swins(network, gmacs):
    """The encoder alone at 224 x 224: multiply-adds of Swin's paper, table 1, less the classifier."""
    model = Contender(0, network=network).build(Group("encoder", "forward", 224))
    assert macs_by_module(model, 224, 224)[""] / 1e9 == pytest.approx(gmacs, rel=0.015)


def test_base_is_compared_where_a_cpu_can():
    for size, device, expected in ((512, "cpu", 2), (1024, "cpu", 0), (2048, "cuda", 2)):
        listed = contenders(Group("encoder", "training", size), device)
        assert sum(contender.network == "base" for contender in listed) == expected

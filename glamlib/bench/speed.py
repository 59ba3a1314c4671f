"""Time and memory of Swin and GLAM-Swin by image size, by how they are computed, and beside other libraries' Swin.

python -m glamlib.bench.speed --out results/tables/speed.csv --cache build/bench [--device cpu] [--threads 2]
Configurations of a group (a part of the network, a pass and an image size) are timed in turn, each right after Swin
(A B, A C, A B, A C, ...), so that what slows the machine slows both, until their ratios hardly vary. Peak memory is
measured in a fresh process for each. Finished groups are cached and not timed again.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import psutil
import torch
import tyro
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import benchmark

from glamlib.bench.peers import LIBRARIES
from glamlib.cost.count import macs_by_module
from glamlib.errors import InputError, one_line_errors
from glamlib.files import write_whole
from glamlib.runs.places import commit, computing_digest, device_name, peak_memory_mib
from glamlib.training.loop import compile_blocks, resolve_device
from glamlib.zoo import create_model

CLASSES = 19
# The decoder of the model that a part is taken from. "stages" is the encoder without its norms, for `LIBRARIES`.
PARTS = {"encoder": "linear", "model": "upernet", "stages": "linear"}
SIZES = (256, 512, 1024, 2048)
LARGEST_ON_CPU = {"encoder": 2048, "model": 256, "stages": 1024}  # above it a round takes minutes
ROUNDS_ON_CPU = {256: (3, 9), 512: (3, 5), 1024: (2, 4), 2048: (1, 1)}  # the fewest and the most


@dataclass(frozen=True)
class Group:
    """What is timed: a part of `PARTS`, "forward" or "training" (forward and backward), and the image's side."""

    part: str
    direction: str
    size: int


@dataclass(frozen=True)
class Configuration:
    """A network and how it is computed; 0 tokens is Swin, "tiny" and "base" are its sizes.

    ``backend`` is "fused", "explicit", "bf16", "checkpointing" or "compiled"; ``library`` whose Swin it is.
    """

    tokens: int
    backend: str = "fused"
    mixer: str = "gmsa"
    behaviour: str = "paper"
    network: str = "tiny"
    library: str = "glamlib"

    @property
    def swin(self) -> "Configuration":
        """What this is compared with: our Swin of the same size by the same backend, or fused for a peer."""
        return Configuration(0, self.backend if self.library == "glamlib" else "fused", network=self.network)

    def build(self, group: Group) -> nn.Module:
        """Return the part of the network in its mode, with first weights: (B, 3, H, W) to one map or a list."""
        overrides = {"num_global_tokens": self.tokens, "mixer": self.mixer} if self.tokens else {}
        overrides |= {"grad_checkpointing": self.backend == "checkpointing", "behaviour": self.behaviour}
        name = f"{'glam_swin' if self.tokens else 'swin'}_{self.network}_{PARTS[group.part]}"
        torch.manual_seed(0)
        model = create_model(name, num_classes=CLASSES, **overrides)
        part = model if group.part == "model" else model.encoder
        if group.part == "stages":
            part.norms = nn.ModuleList(nn.Identity() for _ in part.norms)
            part.register_forward_hook(lambda module, inputs, outputs: outputs[-1].movedim(1, -1))
        if self.library != "glamlib":
            part = LIBRARIES[self.library](model.config, part.state_dict(), group.size, self.backend == "fused")
        part.in_channels = 3
        part.train(group.direction == "training")
        if group.part == "model":
            part.decoder.eval()  # UPerNet's BatchNorm cannot learn from one value a channel; it takes as long
        return part


def configurations(group: Group, device: str, bf16_pays: bool) -> list[Configuration]:
    """Return what a group compares, Swin first; ``bf16_pays``: the machine multiplies bf16 faster than fp32."""
    on_gpu, trains, encoder = device == "cuda", group.direction == "training", group.part == "encoder"
    if group.part == "stages":
        peers = [Configuration(0, backend, library=name) for name in LIBRARIES for backend in ("fused", "explicit")]
        return [Configuration(0), *peers]
    small = on_gpu or (encoder and group.size <= 256)
    backends = {"explicit": small, "bf16": small and bf16_pays, "checkpointing": small and trains, "compiled": on_gpu}
    wanted = {
        Configuration(10): on_gpu or group.size < 2048 or not trains,  # a minute
        Configuration(10, mixer="pooled"): encoder,
        Configuration(10, mixer="linear"): encoder and (on_gpu or group.size <= 512),
        Configuration(1): encoder and (on_gpu or group.size <= 512),
        Configuration(10, behaviour="no_token_mlp"): encoder and small and trains,  # as in the released code
        Configuration(0, network="base"): encoder and on_gpu,
        Configuration(10, network="base"): encoder and on_gpu,
    }
    wanted |= {Configuration(number, backend): taken for backend, taken in backends.items() for number in (0, 10)}
    return [Configuration(0), *(one for one, taken in wanted.items() if taken)]


def one_pass(configuration: Configuration, group: Group, device: str) -> tuple[nn.Module, Callable[[], None]]:
    """Return the network, and a function that runs its pass once on a random image."""
    model, backend, trains = configuration.build(group).to(device), configuration.backend, group.direction == "training"
    torch.manual_seed(0)
    x = torch.randn(1, 3, group.size, group.size, device=device)
    if backend == "compiled":
        compile_blocks(model)

    def run() -> None:
        kernel = sdpa_kernel(SDPBackend.MATH) if backend == "explicit" else nullcontext()
        with kernel, torch.autocast(device, torch.bfloat16, enabled=backend == "bf16"), torch.set_grad_enabled(trains):
            outputs = model(x)
            maps = outputs if isinstance(outputs, list) else [outputs]
            # of every other channel: after a norm, the mean of all is constant
            loss = sum(one[:, ::2].float().mean() for one in maps)
        if trains:
            loss.backward()
            model.zero_grad()

    return model, run


def time_in_turn(
    passes: dict[Configuration, Callable[[], None]], least: int, most: int
) -> dict[Configuration, list[tuple[float, float]]]:
    """Return by configuration the seconds of its passes, each with those of its Swin right before (Swin: its own).

    There are ``least`` to ``most`` rounds, until the quartiles of all ratios lie within 2 % of each other. A pass warms
    each configuration up, but only Swin if there is one round.
    """

    def seconds(one: Configuration) -> float:
        start = benchmark.timer()  # waits for a GPU
        passes[one]()
        return benchmark.timer() - start

    def varies(one: Configuration) -> bool:
        ratios = [after / before for after, before in pairs[one]]
        return not benchmark.Measurement(1, ratios, benchmark.TaskSpec("", "")).meets_confidence(0.02)

    for one, run in passes.items():
        if most > 1 or one == one.swin:
            run()
    pairs = {one: [] for one in passes}
    followed = {one.swin for one in passes if one != one.swin}
    compared = [one for one in passes if one not in followed]
    for number in range(most):
        if number >= least and not any(varies(one) for one in compared):
            break
        for one in compared:
            before = seconds(one.swin)
            pairs[one].append((seconds(one), before))
            if one != one.swin:
                pairs[one.swin].append((before, before))
    return pairs


@cache
def matmul_gflops(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Return the GFLOP/s of a product of square matrices, two operations a multiply-add."""
    side = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timer = benchmark.Timer("left @ right", globals=locals(), num_threads=torch.get_num_threads())
    return 2 * side**3 / timer.blocked_autorange(min_run_time=0.5).median / 1e9


def peak_mib(configuration: Configuration, group: Group, device: str, threads: int) -> float:
    """Return the most memory that a pass needs on top of this fresh process, weights included, in MiB."""
    torch.set_num_threads(threads)
    before = 0.0 if device == "cuda" else psutil.Process().memory_info().rss / 2**20
    _, run = one_pass(configuration, group, device)
    run()
    return peak_memory_mib(device) - before


def apart(function: Callable, *arguments: object) -> object:
    """Return a call's value from a fresh process, NaN if it needs more memory than there is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["glamlib.bench.speed"])  # the process that is forked has imported the library
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (torch.OutOfMemoryError, InputError, BrokenProcessPool):  # refused memory, or killed for it
            return float("nan")


def measure(group: Group, device: str, threads: int) -> pd.DataFrame:
    """Return a group's rows of the table, one a configuration.

    ``seconds`` is the median of all passes (``_low`` and ``_high``: least and greatest), ``ratio`` that of the
    quotients with Swin right before, ``macs_ratio`` what multiply-adds predict, ``backend_ratio`` over the same network
    fused, ``exchange_ratio`` over G-MSA's. ``gmacs`` are useful (a backward pass is twice the forward). NaN: no room.
    """
    torch.set_num_threads(threads)
    listed = configurations(group, device, matmul_gflops(device, torch.bfloat16) > 1.1 * matmul_gflops(device))
    torch.cuda.empty_cache()
    peaks = {one: apart(peak_mib, one, group, device, threads) for one in listed}
    passes = {one: one_pass(one, group, device)[1] for one in listed if pd.notna(peaks[one])}
    pairs = time_in_turn(passes, *(ROUNDS_ON_CPU.get(group.size, (3, 9)) if device == "cpu" else (3, 9)))
    taken = {one: pd.DataFrame(pairs.get(one, []), columns=["own", "swin"]) for one in listed}
    ratios = {one: seconds["own"] / seconds["swin"] for one, seconds in taken.items()}
    with torch.device("meta"):
        macs = {c: macs_by_module(c.build(group), group.size, group.size)[""] for c in listed if c.library == "glamlib"}
    same = {"device": device_name(device), "threads": threads, "torch": torch.__version__, **commit()}
    same["denormals"] = "not" if torch.tensor(1e-40).mul(1).item() else "flushed"
    rows = []
    for one in listed:
        row = {"part": group.part, "pass": group.direction, "size": group.size} | asdict(one)
        exchange = ratios[one] / ratios.get(replace(one, mixer="gmsa"), np.nan)
        for name, rounds in {"seconds": taken[one]["own"], "ratio": ratios[one], "exchange_ratio": exchange}.items():
            row |= {name: rounds.median(), f"{name}_low": rounds.min(), f"{name}_high": rounds.max()}
        row["backend_ratio"] = row["seconds"] / taken[replace(one, backend="fused")]["own"].median()
        counted = macs[one if one in macs else one.swin]
        row |= {"macs_ratio": counted / macs[one.swin], "peak_mib": peaks[one], "rounds": len(taken[one])}
        row["gmacs"] = counted * (3 if group.direction == "training" else 1) / 1e9
        rows.append(row | same)
    return pd.DataFrame(rows)


def groups(device: str) -> list[Group]:
    """Return all groups of a device, the quick ones first."""
    largest = LARGEST_ON_CPU if device == "cpu" else dict.fromkeys(PARTS, max(SIZES))
    passes = ("forward", "training")
    return [Group(part, one, size) for size in SIZES for part in PARTS for one in passes if size <= largest[part]]


def speed(out: Path, cache: Path, device: Literal["cpu", "cuda", "auto"] = "cpu", threads: int = 2) -> None:
    """Time every group and write the table.

    Args:
        out: the CSV file to write.
        cache: folder of the finished groups.
        threads: of the CPU.
    """
    tables, device = [], resolve_device(device)
    for group in groups(device):
        file = cache / computing_digest() / f"{device}-{threads}" / f"{group.part}-{group.direction}-{group.size}.csv"
        if not file.exists():
            print(f"bench {file.stem}", flush=True)
            rows = measure(group, device, threads)
            write_whole(file, rows.to_csv(index=False, float_format="%.5g"))
        tables.append(pd.read_csv(file))
    write_whole(out, pd.concat(tables).sort_values(["part", "pass", "size"], kind="stable").to_csv(index=False))


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(speed)

"""Time and memory of Swin-T and GLAM-Swin-T by image size, and by how they are computed: one group of the table.

python -m glamlib.study.speed encoder-training-512 --out GROUP.json [--device cpu] [--threads 2] [--rounds 5]

A group is a part of the network, a pass and a size. All its contenders are timed in one process, in turn (A B C A B C),
so that whatever slows the machine slows them all, and ratios are taken within a round. Peak memory is measured in a
process of its own for each.
"""

import gc
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
import torch
import tyro
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tyro.conf import Positional

from glamlib.errors import InputError, one_of
from glamlib.layers.block import GlamBlock
from glamlib.models.zoo import create_model

from .cost import macs_by_module
from .files import write_whole
from .matmul_rate import matmul_gflops, synchronize
from .provenance import commit, device_name, peak_memory_mib
from .training import resolve_device

PARTS = {"encoder": "linear", "model": "upernet"}  # and the decoder of the model that the part is taken from
PASSES = ("forward", "training")
CLASSES = 19
WAYS = ("fused", "explicit", "compiled", "bf16", "channels_last", "checkpointing")


@dataclass(frozen=True)
class Group:
    """What is timed: "encoder" or "model", "forward" or "training" (forward and backward), side of the image in pixels.

    UPerNet's pooled branch has a BatchNorm on one value a channel, so its batch is 2; an encoder's is 1.
    """

    part: str
    direction: str
    size: int

    @classmethod
    def parse(cls, name: str) -> "Group":
        part, _, rest = name.partition("-")
        direction, _, size = rest.partition("-")
        if part not in PARTS or direction not in PASSES or not size.isdecimal() or not 32 <= int(size) <= 4096:
            raise InputError(
                f"{name!r}: must be encoder or model, forward or training, 32 to 4096: encoder-forward-512"
            )
        return cls(part, direction, int(size))

    @property
    def name(self) -> str:
        return f"{self.part}-{self.direction}-{self.size}"

    @property
    def batch(self) -> int:
        return 2 if self.part == "model" else 1


@dataclass(frozen=True)
class Contender:
    """One network, computed in one of `WAYS`; 0 tokens is Swin. ``behaviour`` and ``mixer`` are a model's overrides."""

    tokens: int
    way: str = "fused"
    mixer: str = "gmsa"
    behaviour: str = "paper"

    def build(self, group: Group, embed_dim: int) -> nn.Module:
        """Return the part of the network, ready for its pass."""
        overrides = {"embed_dim": embed_dim, "behaviour": self.behaviour}
        overrides["grad_checkpointing"] = self.way == "checkpointing"
        if self.tokens:
            overrides |= {"num_global_tokens": self.tokens, "mixer": self.mixer}
        name = f"{'glam_swin' if self.tokens else 'swin'}_tiny_{PARTS[group.part]}"
        model = create_model(name, num_classes=CLASSES, **overrides)
        part = model.encoder if group.part == "encoder" else model
        part.in_channels = model.in_channels
        part.train(group.direction == "training")
        return part


def contenders(group: Group, device: str, bf16_pays: bool = True) -> list[Contender]:
    """Return what a group compares, Swin first; fewer where a round would take a CPU minutes.

    ``bf16_pays``: whether the machine multiplies matrices of bf16 faster than of fp32.
    """
    patient = device.startswith("cuda") or group.size <= 1024
    listed = [Contender(0), Contender(10)]
    if group.part == "encoder":
        listed.append(Contender(10, mixer="pooled"))
        if patient:
            listed += [Contender(1), Contender(5)]
        if patient and group.direction == "training":
            # the released code's tokens skip the MLP, and the ratios published of it count none
            listed.append(Contender(10, behaviour="no_token_mlp"))
    ways = {
        "explicit": patient,
        "compiled": device.startswith("cuda") or group.size <= 512,
        "bf16": patient and bf16_pays,
        "channels_last": patient and group.part == "model",
        "checkpointing": patient and group.direction == "training",
    }
    return listed + [Contender(number, way) for way, taken in ways.items() if taken for number in (0, 10)]


@contextmanager
def _as(way: str, device: str) -> Iterator[None]:
    """Set what a way of computing needs around a pass."""
    attention = sdpa_kernel(SDPBackend.MATH) if way == "explicit" else nullcontext()
    with attention, torch.autocast(device, torch.bfloat16, enabled=way == "bf16"):
        yield


def one_pass(contender: Contender, group: Group, device: str, embed_dim: int) -> tuple[nn.Module, Callable[[], None]]:
    """Return the network and what runs its pass once, on one random batch."""
    torch.manual_seed(0)
    model = contender.build(group, embed_dim).to(device)
    x = torch.randn(group.batch, 3, group.size, group.size, device=device)
    if contender.way == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if contender.way == "compiled":
        for module in model.modules():
            if isinstance(module, GlamBlock):
                module.compile(dynamic=False)

    def run() -> None:
        with _as(contender.way, device), torch.set_grad_enabled(group.direction == "training"):
            outputs: Tensor | list[Tensor] = model(x)
            if group.direction == "training":
                maps = outputs if isinstance(outputs, list) else [outputs]
                loss = sum(one[:, ::2].float().mean() for one in maps)  # of all channels, a norm makes it constant
        if group.direction == "training":
            loss.backward()
            model.zero_grad()
        synchronize(device)

    return model, run


def _limit_memory() -> None:
    """Refuse what does not fit, where the machine would otherwise kill some process for it."""
    limit = int(psutil.virtual_memory().total * 0.85)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def peak_mib(contender: Contender, group: Group, device: str, threads: int, embed_dim: int) -> float:
    """Return the most memory that two passes need on top of this fresh process, weights included, in MiB."""
    torch.set_num_threads(threads)
    if device == "cpu":
        _limit_memory()
    before = 0.0 if device.startswith("cuda") else psutil.Process().memory_info().rss / 2**20
    _, run = one_pass(contender, group, device, embed_dim)
    run()
    run()
    return peak_memory_mib(device) - before


def time_in_turn(group: Group, listed: list[Contender], device: str, threads: int, rounds: int, embed_dim: int) -> dict:
    """Return seconds of every round and multiply-adds of one image by contender; a contender that fails has none."""
    torch.set_num_threads(threads)
    if device == "cpu":
        _limit_memory()
    runs, macs, seconds = {}, {}, {contender: [] for contender in listed}
    for contender in listed:
        try:
            model, run = one_pass(contender, group, device, embed_dim)
            macs[contender] = macs_by_module(model, group.size, group.size)[""]
            run()
            runs[contender] = run
        except RuntimeError as error:  # does not fit into memory, or cannot be compiled here
            print(f"{group.name}, {contender}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        gc.collect()
    for _ in range(rounds):
        for contender, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[contender].append(time.perf_counter() - start)
    return {"macs": macs, "seconds": seconds}


def matmul_rates(device: str, threads: int) -> dict[str, float]:
    """Return the machine's GFLOP/s of matrix products, by type."""
    torch.set_num_threads(threads)
    return {"fp32": matmul_gflops(device, torch.float32), "bf16": matmul_gflops(device, torch.bfloat16)}


def _apart(function: Callable, *arguments: object) -> object:
    """Return a call's value from a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(
    group: Group,
    listed: list[Contender],
    device: str,
    threads: int,
    rounds: int,
    rates: dict[str, float],
    embed_dim: int = 96,
) -> list[dict[str, object]]:
    """Return a group's rows of the table.

    ``seconds`` is the median of the rounds, ``ratio`` the median of the rounds' quotients with Swin computed in the
    same way (``ratio_low`` and ``ratio_high``: least and greatest), ``macs_ratio`` what multiply-adds alone predict;
    ``way_ratio`` the quotient with the same network fused. ``gflops`` counts useful operations only (a backward pass is
    twice the forward), ``share`` is of the matrix-product rate (``rates``, `matmul_rates`). NaN where it did not fit.
    """
    timed = _apart(time_in_turn, group, listed, device, threads, rounds, embed_dim)
    origin = {
        "device": device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        **commit(),
    }
    rows = []
    for contender in listed:
        seconds = timed["seconds"][contender]
        swin = Contender(0, contender.way)
        fused = Contender(contender.tokens, "fused", contender.mixer, contender.behaviour)
        ratios = sorted(_quotients(seconds, timed["seconds"][swin]))
        try:
            peak = _apart(peak_mib, contender, group, device, threads, embed_dim) if seconds else float("nan")
        except (RuntimeError, BrokenProcessPool):
            peak = float("nan")
        work = (
            2 * timed["macs"].get(contender, float("nan")) * group.batch * (3 if group.direction == "training" else 1)
        )
        typical = median(seconds) if seconds else float("nan")
        rows.append(
            {
                "part": group.part,
                "pass": group.direction,
                "size": group.size,
                "batch": group.batch,
                **asdict(contender),
                "seconds": typical,
                "ratio": median(ratios) if ratios else float("nan"),
                "ratio_low": ratios[0] if ratios else float("nan"),
                "ratio_high": ratios[-1] if ratios else float("nan"),
                "macs_ratio": timed["macs"].get(contender, float("nan")) / timed["macs"][Contender(0)],
                "way_ratio": median(_quotients(seconds, timed["seconds"][fused]) or [float("nan")]),
                "peak_mib": peak,
                "gmacs": work / 2e9,
                "gflops": work / typical / 1e9,
                "share": work / typical / 1e9 / rates["bf16" if contender.way == "bf16" else "fp32"],
                "rounds": rounds,
                **origin,
            }
        )
    return rows


def _quotients(seconds: list[float], others: list[float]) -> list[float]:
    """Return round by round ``seconds`` over ``others``; nothing where either failed."""
    return [a / b for a, b in zip(seconds, others, strict=False)]


def speed(
    group: Positional[str],
    out: Path,
    device: str = "cpu",
    threads: int = 2,
    rounds: int = 5,
    embed_dim: int = 96,
    ways: tuple[str, ...] = WAYS,
) -> None:
    """Measure one group and write its rows.

    Args:
        group: part, pass and size, as in encoder-training-512.
        out: the JSON file to write.
        device: cpu, cuda or auto.
        threads: of the CPU.
        rounds: timed passes of every contender, after one to warm up.
        embed_dim: channels of the first stage; 96 is Tiny, and less is for tests.
        ways: leave out all others.
    """
    for way in ways:
        if way not in WAYS:
            raise one_of("way", way, WAYS)
    if rounds < 1 or threads < 1:
        raise InputError(f"rounds {rounds}, threads {threads}: must be at least 1")
    parsed, place = Group.parse(group), resolve_device(device)
    rates = _apart(matmul_rates, place, threads)
    listed = contenders(parsed, place, rates["bf16"] > rates["fp32"])
    listed = [contender for contender in listed if contender.way in {"fused", *ways}]
    rows = measure(parsed, listed, place, threads, rounds, rates, embed_dim)
    write_whole(out, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    try:
        tyro.cli(speed)
    except InputError as error:
        sys.exit(f"error: {error}")

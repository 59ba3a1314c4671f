"""How fast this machine multiplies matrices: what a model's speed is measured against.

MERGED: What the speed benchmark compares: groups (part of the network, pass, image size) and their contenders.

MERGED: Time and memory of Swin and GLAM-Swin by image size, and by how they are computed: one group of the table.

python -m glamlib.bench.speed encoder-training-512 --out GROUP.json [--device cpu] [--threads 2] [--rounds 5]

A group is a part of the network, a pass and a size (`glamlib.bench.speed`). All its contenders are timed in
one process, in turn, each right behind Swin (A B A C A B A C), so that whatever slows the machine slows both, and
ratios are of such neighbours. Peak memory is measured in a process of its own for each. From Python: `measure`. Needs
none of the packages that only the study wants.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import psutil
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from glamlib.cost.count import macs_by_module
from glamlib.errors import InputError
from glamlib.files import write_whole
from glamlib.runs.provenance import commit, device_name, peak_memory_mib
from glamlib.training.loop import compile_blocks, resolve_device
from glamlib.zoo import create_model

_ROUNDS = 5
_LONG_ENOUGH = 0.05  # seconds


def synchronize(device: str) -> None:
    """Wait for what a GPU still has to do, so that a clock may be read."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matmul_gflops(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Return the GFLOP/s of a product of square matrices, two operations a multiply-add; median of 5.

    The matrices are as large as takes a twentieth of a second: 8192 a side at most on a GPU, 2048 on a CPU, and less
    where the CPU has no instructions for the type.
    """
    side, largest = 256, 8192 if device.startswith("cuda") else 2048
    _seconds(side, device, dtype)  # the first product also loads the library
    while side < largest and _seconds(side, device, dtype) < _LONG_ENOUGH:
        side *= 2
    return 2 * side**3 / median(_seconds(side, device, dtype) for _ in range(_ROUNDS)) / 1e9


def _seconds(side: int, device: str, dtype: torch.dtype) -> float:
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    synchronize(device)
    start = time.perf_counter()
    left @ right
    synchronize(device)
    return time.perf_counter() - start


PARTS = {"encoder": "linear", "model": "upernet"}  # and the decoder of the model that the part is taken from
PASSES = ("forward", "training")
CLASSES = 19
WAYS = ("fused", "torch", "explicit", "compiled", "bf16", "compiled_bf16", "channels_last", "checkpointing")


@dataclass(frozen=True)
class Group:
    """What is timed: "encoder" or "model", "forward" or "training" (forward and backward), side of the image in pixels,
    images in a batch.
    """

    part: str
    direction: str
    size: int
    batch: int = 1

    @classmethod
    def parse(cls, name: str) -> "Group":
        """Return the group of a name: encoder-training-512, or encoder-training-512-8 for a batch of 8.

        Raises:
            InputError: the name is none of a group.
        """
        part, direction, *numbers = name.split("-") if name.count("-") in (2, 3) else ("", "", "")
        known = part in PARTS and direction in PASSES and all(n.isascii() and n.isdecimal() for n in numbers)
        if not known or not 32 <= int(numbers[0]) <= 4096 or not all(1 <= int(n) <= 1024 for n in numbers[1:]):
            raise InputError(
                f"{name!r}: must be encoder or model, forward or training, 32 to 4096 pixels, and perhaps the images "
                "in a batch: encoder-forward-512 or encoder-forward-512-8"
            )
        return cls(part, direction, *map(int, numbers))

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.part, self.direction, self.size, *([self.batch] if self.batch > 1 else []))))


@dataclass(frozen=True)
class Contender:
    """One network ("tiny" or "base"), computed in one of `WAYS`; 0 tokens is Swin.

    ``behaviour`` and ``mixer`` are a model's overrides.
    """

    tokens: int
    way: str = "fused"
    mixer: str = "gmsa"
    behaviour: str = "paper"
    network: str = "tiny"

    def build(self, group: Group, embed_dim: int | None = None) -> nn.Module:
        """Return the part of the network, ready for its pass; ``embed_dim`` overrides the channels of its first stage.

        It takes images ``(B, 3, H, W)``, and gives a pyramid (a list of maps, channels first) or logits.
        """
        overrides: dict[str, object] = {"behaviour": self.behaviour}
        overrides["grad_checkpointing"] = self.way == "checkpointing"
        if embed_dim is not None:
            overrides["embed_dim"] = embed_dim
        if self.tokens:
            overrides |= {"num_global_tokens": self.tokens, "mixer": self.mixer}
        name = f"{'glam_swin' if self.tokens else 'swin'}_{self.network}_{PARTS[group.part]}"
        model = create_model(name, num_classes=CLASSES, **overrides)
        part = model.encoder if group.part == "encoder" else model
        part.in_channels = model.in_channels
        part.train(group.direction == "training")
        if group.part == "model" and group.batch == 1:
            part.decoder.eval()  # a BatchNorm of UPerNet's cannot learn from one value a channel; it takes as long
        return part


# The largest image side at which a CPU times what is not Swin-T and GLAM-Swin-T with 10 tokens, fused: above it a round
# takes minutes.
_PATIENCE = {
    "1 or 5 tokens": 1024,
    "no_token_mlp": 1024,
    "linear": 512,
    "base": 512,
    "explicit": 512,
    "bf16": 512,
    "checkpointing": 512,
    "ways of the model": 256,
}
# Compiling takes a CPU two minutes a network, whatever the size: one size of forward passes tells.
_COMPILED_SIZE = 512
# On smaller images no sequence is long enough for a kernel of ours, and "torch" is what "fused" is.
_LONG_SIZE = 512


def contenders(group: Group, device: str, bf16_pays: bool = True) -> list[Contender]:
    """Return what a group compares, Swin first; fewer where a round would take a CPU minutes.

    Args:
        group: see `Group`.
        device: "cpu" or "cuda".
        bf16_pays: whether the machine multiplies matrices of bf16 faster than of fp32.
    """
    on_gpu, encoder, trains = device.startswith("cuda"), group.part == "encoder", group.direction == "training"

    def patient(what: str) -> bool:
        return on_gpu or group.size <= _PATIENCE[what]

    listed = [Contender(0), Contender(10)]
    if encoder:
        listed += [Contender(10, mixer=mixer) for mixer in ("pooled", "linear") if mixer == "pooled" or patient(mixer)]
        if patient("1 or 5 tokens"):
            listed += [Contender(1), Contender(5)]
        if trains and patient("no_token_mlp"):
            # the released code's tokens skip the MLP, and the ratios published of it count none
            listed.append(Contender(10, behaviour="no_token_mlp"))
        if patient("base"):
            listed += [Contender(number, network="base") for number in (0, 10)]
    patient_part = encoder or patient("ways of the model")
    ways = {
        "torch": encoder and not on_gpu and _LONG_SIZE <= group.size <= 1024,
        "explicit": encoder and patient("explicit"),
        "compiled": on_gpu or (encoder and not trains and group.size == _COMPILED_SIZE),
        "bf16": patient_part and patient("bf16") and bf16_pays,
        "compiled_bf16": on_gpu and bf16_pays,
        "channels_last": not encoder and patient_part,
        "checkpointing": trains and patient_part and patient("checkpointing"),
    }
    return listed + [Contender(number, way) for way, taken in ways.items() if taken for number in (0, 10)]


__all__ = ["Contender", "Group", "contenders", "matmul_rates", "measure"]

NOT_A_NUMBER = float("nan")
# Ways that name torch's kernel for all attention without weights; the others take what is best.
_KERNELS = {"explicit": SDPBackend.MATH, "torch": SDPBackend.FLASH_ATTENTION}


@contextmanager
def _as(way: str, device: str) -> Iterator[None]:
    """Set what a way of computing needs around a pass."""
    kernel = _KERNELS.get(way)
    with (
        sdpa_kernel(kernel) if kernel else nullcontext(),
        torch.autocast(device, torch.bfloat16, enabled="bf16" in way),
    ):
        yield


def one_pass(
    contender: Contender, group: Group, device: str, embed_dim: int | None = None
) -> tuple[nn.Module, Callable[[], None]]:
    """Return the network and what runs its pass once, on one random batch."""
    torch.manual_seed(0)
    model = contender.build(group, embed_dim).to(device)
    x = torch.randn(group.batch, 3, group.size, group.size, device=device)
    if contender.way == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if "compiled" in contender.way:
        compile_blocks(model)

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


def peak_mib(contender: Contender, group: Group, device: str, threads: int, embed_dim: int | None) -> float:
    """Return the most memory that a pass needs on top of this fresh process, weights included, in MiB."""
    torch.set_num_threads(threads)
    if device == "cpu":
        _limit_memory()
    before = 0.0 if device.startswith("cuda") else psutil.Process().memory_info().rss / 2**20
    _, run = one_pass(contender, group, device, embed_dim)
    run()
    return peak_memory_mib(device) - before


def time_in_turn(
    group: Group, listed: list[Contender], device: str, threads: int, rounds: int, embed_dim: int | None
) -> dict:
    """Return by contender: multiply-adds of one image (``macs``), seconds of every round (``seconds``; of Swin the
    round's median), and those of Swin right before (``beside``). A contender that fails has none.
    """
    torch.set_num_threads(threads)
    if device == "cpu":
        _limit_memory()
    runs, macs = {}, {}
    seconds, beside = ({contender: [] for contender in listed} for _ in range(2))
    for contender in listed:
        try:
            # of a network of its own: a compiled block's copy would still compute with the original's weights
            macs[contender] = macs_by_module(contender.build(group, embed_dim), group.size, group.size)[""]
            _, run = one_pass(contender, group, device, embed_dim)
            if rounds:
                run()
            runs[contender] = run
        except RuntimeError as error:  # does not fit into memory, or cannot be compiled here
            print(f"{group.name}, {contender}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        gc.collect()
    for _ in range(rounds):
        for contender, taken in _one_round(runs, beside).items():
            seconds[contender].append(median(taken))
    return {"macs": macs, "seconds": seconds, "beside": beside}


def _one_round(
    runs: dict[Contender, Callable[[], None]], beside: dict[Contender, list[float]]
) -> dict[Contender, list[float]]:
    """Return the seconds of one round by contender, and append to ``beside`` those of Swin right before each."""
    taken = {contender: [] for contender in runs}

    def timed(contender: Contender) -> float:
        start = time.perf_counter()
        runs[contender]()
        taken[contender].append(time.perf_counter() - start)
        return taken[contender][-1]

    for contender in runs:
        swin = _swin(contender)
        if contender != swin:
            if swin in runs:
                beside[contender].append(timed(swin))
            timed(contender)
    for contender in runs:
        if not taken[contender]:  # a Swin that nothing is compared with
            timed(contender)
    return taken


def matmul_rates(device: str, threads: int) -> dict[str, float]:
    """Return the machine's GFLOP/s of matrix products, by type."""
    torch.set_num_threads(threads)
    return {"fp32": matmul_gflops(device, torch.float32), "bf16": matmul_gflops(device, torch.bfloat16)}


def _apart(function: Callable, *arguments: object) -> object:
    """Return a call's value from a fresh process of its own.

    Where there are fork servers, one imports what takes seconds once for all such processes.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["glamlib.training.loop", "glamlib.bench.speed"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure(
    group: Group,
    listed: list[Contender],
    device: str,
    threads: int,
    rounds: int,
    rates: dict[str, float],
    embed_dim: int | None = None,
) -> list[dict[str, object]]:
    """Return a group's rows of the table, one a contender.

    Args:
        group: what is timed.
        listed: the contenders (`contenders`); every network and way needs its Swin, 0 tokens, among them.
        device: "cpu" or "cuda".
        threads: of the CPU.
        rounds: timed passes of every contender, after one to warm up; 0 to measure memory alone.
        rates: the machine's GFLOP/s of matrix products by type (`matmul_rates`).
        embed_dim: channels of the first stage; None for the networks' own.

    Returns:
        Rows of numbers and names. ``seconds`` is the median of the rounds, ``ratio`` the median of the rounds'
        quotients with Swin of the same size computed in the same way right before (``ratio_low`` and ``ratio_high``:
        least and greatest), ``macs_ratio`` what multiply-adds alone predict; ``way_ratio`` the quotient with the same
        network fused, ``exchange_ratio`` (with ``_low`` and ``_high``) that of the quotient with Swin over the same
        network's under G-MSA. ``gmacs`` are
        useful multiply-adds of the batch (a backward pass is twice the forward), ``gflops`` and ``share`` (of the
        matrix-product rate) what is reached of them. NaN where it did not fit. ``own_kernel`` tells whether long
        sequences went by `glamlib.layers.long_attention` where nothing else was asked for.

    Raises:
        InputError: a contender has no Swin to be compared with.
    """
    for contender in listed:
        if _swin(contender) not in listed:
            raise InputError(f"{contender} has nothing to be compared with: {_swin(contender)} is not listed")
    timed = _apart(time_in_turn, group, listed, device, threads, rounds, embed_dim)
    origin = {"rounds": rounds, "device": device_name(device), "threads": threads, "torch": torch.__version__}
    origin |= commit()
    rows = []
    for contender in listed:
        peak = NOT_A_NUMBER
        if timed["seconds"][contender] or not rounds:
            with suppress(RuntimeError, BrokenProcessPool):  # refused memory, or killed for it
                peak = _apart(peak_mib, contender, group, device, threads, embed_dim)
        rate = rates["bf16" if "bf16" in contender.way else "fp32"]
        rows.append(_row(group, contender, timed, rate) | {"peak_mib": peak} | origin)
    return rows


def _swin(contender: Contender) -> Contender:
    """Return Swin of the same size, computed in the same way."""
    return Contender(0, contender.way, network=contender.network)


def _row(group: Group, contender: Contender, timed: dict[str, dict], rate: float) -> dict[str, object]:
    """Return what `measure` says of one contender's time, from what `time_in_turn` returned of all."""
    macs, seconds, beside = timed["macs"], timed["seconds"], timed["beside"]
    typical = median(seconds[contender] or [NOT_A_NUMBER])
    fused, with_gmsa = replace(contender, way="fused"), replace(contender, mixer="gmsa")
    ratios = _over_swin(contender, seconds, beside)
    over_gmsa = _quotients(ratios, _over_swin(with_gmsa, seconds, beside) if with_gmsa in seconds else [])
    of_image, of_swin = (macs.get(which, NOT_A_NUMBER) for which in (contender, _swin(contender)))
    useful = of_image * group.batch * (3 if group.direction == "training" else 1) / 1e9
    return {
        "part": group.part,
        "pass": group.direction,
        "size": group.size,
        "batch": group.batch,
        **asdict(contender),
        "seconds": typical,
        "ratio": median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "macs_ratio": of_image / of_swin,
        "way_ratio": median(_quotients(seconds[contender], seconds.get(fused, []))),
        "exchange_ratio": median(over_gmsa),
        "exchange_ratio_low": min(over_gmsa),
        "exchange_ratio_high": max(over_gmsa),
        "gmacs": useful,
        "gflops": 2 * useful / typical,
        "share": 2 * useful / typical / rate,
    }


def _over_swin(
    contender: Contender, seconds: dict[Contender, list[float]], beside: dict[Contender, list[float]]
) -> list[float]:
    """Return round by round the quotient with Swin; one NaN where either failed."""
    swin = seconds[contender] if contender == _swin(contender) else beside[contender]
    return _quotients(seconds[contender], swin)


def _quotients(seconds: list[float], others: list[float]) -> list[float]:
    """Return round by round ``seconds`` over ``others``; one NaN where either failed."""
    return [a / b for a, b in zip(seconds, others, strict=False)] or [NOT_A_NUMBER]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", help="part, pass and size, as in encoder-training-512; -8 at the end: a batch of 8")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of every contender; 0: memory alone")
    parser.add_argument("--embed-dim", type=int, help="channels of the first stage, fewer for tests")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="leave out all others, but for fused")
    options = parser.parse_args()
    try:
        if options.rounds < 0 or options.threads < 1:
            raise InputError(f"rounds {options.rounds}, threads {options.threads}: must be at least 0 and 1")
        group, device = Group.parse(options.group), resolve_device(options.device)
        rates = _apart(matmul_rates, device, options.threads)
        listed = contenders(group, device, rates["bf16"] > rates["fp32"])
        listed = [contender for contender in listed if contender.way in {"fused", *options.ways}]
        rows = measure(group, listed, device, options.threads, options.rounds, rates, options.embed_dim)
        write_whole(options.out, json.dumps(rows, indent=1) + "\n")
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

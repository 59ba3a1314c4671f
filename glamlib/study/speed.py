"""Time and memory of Swin and GLAM-Swin by image size, and by how they are computed: one group of the table.

python -m glamlib.study.speed encoder-training-512 --out GROUP.json [--device cpu] [--threads 2] [--rounds 5]

A group is a part of the network, a pass and a size (`glamlib.study.speed_contenders`). All its contenders are timed in
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
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import psutil
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from glamlib.errors import InputError
from glamlib.layers import long_attention

from .compiling import compile_blocks
from .cost import macs_by_module
from .files import write_whole
from .matmul_rate import matmul_gflops, synchronize
from .provenance import commit, device_name, peak_memory_mib
from .speed_contenders import WAYS, Contender, Group, contenders
from .training import resolve_device

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
        context.set_forkserver_preload(["glamlib.study.training", "glamlib.study.speed_contenders"])
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
    origin |= commit() | {"own_kernel": device == "cpu" and long_attention.kernel() is not None}
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

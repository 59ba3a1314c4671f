"""Attention over long sequences on a CPU, in less time than torch's own kernel; G-MSA at high resolution is one.

The kernel (long_attention.cpp) is compiled by the machine's C++ compiler when a process first needs it. Without a
compiler, torch's kernel computes the same.
"""

import ctypes
import os
import shlex
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from math import ceil, e, log, log2
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import followed

_SOURCE = Path(__file__).with_suffix(".cpp")
_COMPILE = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
_WIDTH, _BLOCK = 32, 96  # channels of a head and rows of a block, as in the source
_LONG = 2048  # rows from which on the kernel is worth its packing
_VANISHING = 1e30  # a log-sum-exp of which nothing is left


@cache
def kernel() -> ctypes.CDLL | None:
    """Return the compiled kernel, or None where it cannot be compiled."""
    with TemporaryDirectory() as folder:
        library = Path(folder) / "long_attention.so"
        command = [*shlex.split(os.environ.get("CXX", "c++")), *_COMPILE, str(_SOURCE), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True)
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.CalledProcessError):
            return None


def is_long(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Tell whether the kernel is for these: q ``(B, heads, N, d)``, k and v ``(B, heads, M, d)``.

    It is for at least 2048 of either on a CPU, in float32, with heads of 32 channels (those of Swin and nnFormer); not
    under a compiler or tracer, nor where torch is told which kernel to take (`torch.nn.attention.sdpa_kernel`).
    """
    if min(q.shape[-2], k.shape[-2]) < _LONG:
        return False
    if {(t.device.type, t.dtype, t.shape[-1]) for t in (q, k, v)} != {("cpu", torch.float32, _WIDTH)}:
        return False
    told = not (torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.math_sdp_enabled())
    return not followed() and not told and kernel() is not None


def attend_long(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return ``softmax(q k^T / sqrt(d)) v`` of sequences that `is_long` takes.

    Args:
        q: ``(B, heads, N, d)``.
        k: ``(B, heads, M, d)``.
        v: as ``k``.

    Returns:
        ``(B, heads, N, d)``.

    Raises:
        RuntimeError: in the backward pass, if it is to be differentiated itself (``create_graph=True``).
    """
    return _LongAttention.apply(q, k, v)


def _rows(x: Tensor) -> Tensor:
    """Return the rows of all heads, each padded with zeros to whole blocks: ``(B * heads, rows, d)``."""
    return F.pad(x.flatten(0, 1), (0, 0, 0, -x.shape[2] % _BLOCK)).contiguous()


def _blocks(rows: Tensor) -> Tensor:
    """Return each block of rows transposed: ``(B * heads, rows, d)`` to ``(B * heads, blocks, d, rows of a block)``."""
    return rows.unflatten(1, (-1, _BLOCK)).transpose(2, 3).contiguous()


def _shares_of(heads: int, blocks: int) -> list[range]:
    """Cut the blocks of queries of a head so that all heads' shares keep all threads at work."""
    threads = torch.get_num_threads()
    parts = next((n for n in range(1, threads) if heads * n % threads == 0), threads)
    length = ceil(blocks / parts)
    return [range(first, min(first + length, blocks)) for first in range(0, blocks, length)]


def _address(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _in_threads(work: Callable[[tuple[int, int]], None], heads: int, shares: int) -> None:
    """Do the work of each head and share. The kernel runs outside Python's lock."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(work, product(range(heads), range(shares))))


class _LongAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # q is scaled so that the weights are powers of two
        queries, k_blocks, values = _rows(q * (log2(e) * _WIDTH**-0.5)), _blocks(_rows(k)), _rows(v)
        y, log_sums = torch.empty_like(queries), queries.new_empty(queries.shape[:2])
        shares = _shares_of(len(queries), queries.shape[1] // _BLOCK)
        attend = kernel().attend_forward

        def work(item: tuple[int, int]) -> None:
            head, share = item
            tensors = (t[head] for t in (queries, k_blocks, values, y, log_sums))
            blocks = shares[share]
            attend(*map(_address, tensors), *map(ctypes.c_long, (blocks.start, blocks.stop, k.shape[2])))

        _in_threads(work, len(queries), len(shares))
        y = y[:, : q.shape[2]].reshape(q.shape)
        log_sums[:, q.shape[2] :] = _VANISHING
        ctx.save_for_backward(q, k, v, y, log_sums)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if torch.is_grad_enabled():  # asked for by create_graph: autograd does not see what the kernel does
            raise RuntimeError(
                "attention over long sequences has no gradient of its gradient: compute it under "
                "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
            )
        q, k, v, y, log_sums = ctx.saved_tensors
        queries, keys = _rows(q * (log2(e) * _WIDTH**-0.5)), _rows(k)
        k_blocks, v_blocks, dy_rows = _blocks(keys), _blocks(_rows(v)), _rows(dy)
        of_y = _rows((y * dy).sum(dim=-1, keepdim=True))  # (B * heads, rows, 1)
        shares = _shares_of(len(queries), queries.shape[1] // _BLOCK)
        # Every share of queries adds to gradients of keys and values of its own.
        dk, dv = (keys.new_zeros(len(shares), *keys.shape) for _ in range(2))
        dq = torch.zeros_like(queries)
        attend = kernel().attend_backward

        def work(item: tuple[int, int]) -> None:
            head, share = item
            inputs = (t[head] for t in (queries, keys, k_blocks, v_blocks, dy_rows, log_sums, of_y, dq))
            outputs = (t[share, head] for t in (dk, dv))
            blocks = shares[share]
            numbers = map(ctypes.c_long, (blocks.start, blocks.stop, k.shape[2]))
            attend(*map(_address, inputs), *map(_address, outputs), *numbers)

        _in_threads(work, len(queries), len(shares))
        dq = (dq[:, : q.shape[2]] * _WIDTH**-0.5).reshape(q.shape)
        dk = (dk.sum(dim=0)[:, : k.shape[2]] * log(2)).reshape(k.shape)
        return dq, dk, dv.sum(dim=0)[:, : v.shape[2]].reshape(v.shape)

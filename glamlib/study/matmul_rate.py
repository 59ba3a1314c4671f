"""How fast this machine multiplies matrices: what a model's speed is measured against."""

import time
from statistics import median

import torch

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

"""How much of a GPU's own rate of matrix products a training reaches."""

import torch
from torch import nn

from .cost import macs_by_module
from .datasets import AnyDataset
from .matmul_rate import matmul_gflops
from .parameters import RunParameters
from .training import resolve_device

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BACKWARD = 2  # multiply-adds of a backward pass over those of the forward pass


def training_speed(
    model: nn.Module, dataset: AnyDataset, run: RunParameters, seconds_a_step: float | None
) -> dict[str, float] | None:
    """Return what `achieved_speed` does for a run on a GPU; None on a processor, where other runs share the cores.

    ``seconds_a_step`` is None, and so is the answer, where the run was too short to tell.
    """
    device = resolve_device(run.device)
    if device == "cpu" or seconds_a_step is None:
        return None
    return achieved_speed(model, training_size(dataset, run), run, seconds_a_step, device)


def training_size(dataset: AnyDataset, run: RunParameters) -> tuple[int, ...]:
    """Return the size ``(H, W)`` or ``(D, H, W)`` of what a training step sees."""
    return tuple(run.augment.get("crop_size") or run.augment.get("patch_size") or dataset[0][1].shape)


def achieved_speed(
    model: nn.Module, size: tuple[int, ...], run: RunParameters, seconds_a_step: float, device: str
) -> dict[str, float]:
    """Return images_per_second, tflops, device_tflops and share.

    Useful operations only count: two a multiply-add, a backward pass as two forward passes, nothing that is computed
    again, no auxiliary head. device_tflops is the measured rate of one large matrix product of the run's precision.
    """
    rate = run.batch_size / seconds_a_step
    tflops = rate * 2 * macs_by_module(model, *size)[""] * (1 + BACKWARD) / 1e12
    device_tflops = matmul_gflops(device, _TYPES[run.precision]) / 1e3
    return {
        "images_per_second": rate,
        "tflops": tflops,
        "device_tflops": device_tflops,
        "share": tflops / device_tflops,
    }

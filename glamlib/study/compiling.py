"""Blocks compiled by torch.compile for as long as a training lasts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from glamlib.layers.block import GlamBlock

# A network's blocks differ in size, shift and tokens, and each kind is compiled for itself; torch gives up at 8.
_KINDS = 64


def compile_blocks(model: nn.Module) -> None:
    """Compile every `GlamBlock` of ``model``, each for the sizes it meets, when it first meets them.

    Weights and their names stay. Blocks of the same kind share their code.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS)
    for module in model.modules():
        if isinstance(module, GlamBlock):
            module.forward = torch.compile(module.forward, dynamic=False)


@contextmanager
def compiled_blocks(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile the blocks inside, if ``wanted``, and leave them as they were: test images have sizes of their own.

    A block that cannot be compiled runs as it is: a missing compiler is no reason to stop a run.
    """
    if wanted:
        torch._dynamo.config.suppress_errors = True
        compile_blocks(model)
    try:
        yield
    finally:
        for module in model.modules():
            if isinstance(module, GlamBlock):
                module.__dict__.pop("forward", None)

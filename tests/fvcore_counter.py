"""fvcore's count of multiply-adds, against which torch's is checked."""

import copy
from math import prod

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from glamlib.cost.count import by_component

# What fvcore meets in our models and is left out on purpose. Anything else it cannot count is an error.
ELEMENTWISE = {
    f"aten::{name}"
    for name in """
        add add_ mul mul_ sub div rsub pow square neg remainder floor_divide softmax gelu relu relu_ elu exp sin
        cos ne mean sum amax roll cat pad constant_pad_nd index expand expand_as clone stack repeat
        repeat_interleave movedim embedding arange meshgrid zeros ones scalar_tensor fill_ masked_fill
        masked_fill_ dropout feature_dropout adaptive_avg_pool2d adaptive_avg_pool3d upsample_bilinear2d
        upsample_bicubic2d _upsample_bicubic2d_aa max_pool2d layer_norm batch_norm dropout_ im2col lt unflatten
        unfold tensor_split floor_divide_ new_ones leaky_relu_ group_norm upsample_trilinear3d
    """.split()  # noqa: SIM905
}


def attention_macs(inputs: list, outputs: list) -> int:
    """Multiply-adds of a fused attention: q k^T, and its product with v."""
    query, key, value = (list(v.type().sizes()) for v in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def fvcore_macs(model: nn.Module, *size: int) -> dict[str, int]:
    """Return what `glamlib.cost.count.count_macs` does, counted by fvcore, which runs the model on the CPU."""
    counter = FlopCountAnalysis(copy.deepcopy(model).cpu().eval(), torch.zeros(1, model.in_channels, *size))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    counter.set_op_handle("aten::scaled_dot_product_attention", attention_macs)
    counter.set_op_handle(**dict.fromkeys(ELEMENTWISE, lambda inputs, outputs: 0))
    with torch.no_grad():
        found = by_component({name: int(macs) for name, macs in counter.by_module().items()})
        unknown = set(counter.unsupported_ops()) - ELEMENTWISE
    assert not unknown, f"fvcore does not count {sorted(unknown)}"
    return found

"""What a model costs: parameters and multiply-adds by component, from the model itself.

A multiply-add is one multiplication and one addition of a convolution or a matrix product; "gmacs" are 1e9 of them.
Published "FLOPs" of Swin and its kin are these. Norms, softmax, resizing and other element-wise work are left out, as
in the published figures. Cost depends on the size of the image, so the size goes with every number.
"""

import copy
import json
from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

COMPONENTS = ("patch_embedding", "w_msa", "g_msa", "mlp", "merging", "norms", "decoder")

# What fvcore meets in our models and we leave out on purpose. Anything else it cannot count is an error.
_ELEMENTWISE = {
    f"aten::{name}"
    for name in [
        "add",
        "add_",
        "mul",
        "sub",
        "div",
        "rsub",
        "softmax",
        "gelu",
        "relu",
        "relu_",
        "roll",
        "cat",
        "pad",
        "constant_pad_nd",
        "index",
        "expand",
        "expand_as",
        "clone",
        "sin",
        "cos",
        "embedding",
        "repeat",
        "fill_",
        "scalar_tensor",
        "dropout",
        "feature_dropout",
        "mean",
        "adaptive_avg_pool2d",
        "upsample_bilinear2d",
        "layer_norm",
        "batch_norm",
        "movedim",
        "neg",
        "remainder",
        "floor_divide",
        "ne",
        "arange",
        "meshgrid",
        "stack",
        "pow",
        "zeros",
        "ones",
        "masked_fill_",
        "masked_fill",
    ]
}


@dataclass(frozen=True)
class Cost:
    """Cost of one model on one image of ``height`` x ``width`` pixels; both dicts have "total" and `COMPONENTS`."""

    height: int
    width: int
    parameters: dict[str, int]
    gmacs: dict[str, float]

    def to_json(self, name: str, classes: int) -> str:
        """Return the JSON of ``python -m glamlib cost NAME --json``."""
        values = {"name": name, "height": self.height, "width": self.width, "classes": classes}
        return json.dumps(values | {"parameters": self.parameters, "gmacs": self.gmacs})


def component(name: str) -> str:
    """Return the component that a module or parameter belongs to, by its qualified name."""
    parts = name.split(".")
    if parts[0] == "decoder":
        return "decoder"
    for part, belongs in (
        ("patch_embed", "patch_embedding"),
        ("downsample", "merging"),
        ("attn", "w_msa"),
        ("mixer", "g_msa"),
        ("norm_mixer", "g_msa"),
        ("global_tokens", "g_msa"),
        ("mlp", "mlp"),
    ):
        if part in parts:
            return belongs
    return "norms"


def _attention_macs(inputs: list, outputs: list) -> int:
    """Return multiply-adds of a fused attention: q k^T, and its product with v."""
    query, key, value = (list(v.type().sizes()) for v in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _macs_by_module_fvcore(model: nn.Module, height: int, width: int) -> dict[str, int]:
    """Return multiply-adds of every module, as fvcore traces them. It runs the model, on the CPU."""
    from fvcore.nn import FlopCountAnalysis

    counter = FlopCountAnalysis(copy.deepcopy(model).cpu().eval(), torch.zeros(1, model.in_channels, height, width))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    counter.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    counter.set_op_handle(**dict.fromkeys(_ELEMENTWISE, lambda inputs, outputs: 0))
    with torch.no_grad():
        by_module = counter.by_module()
        unknown = set(counter.unsupported_ops()) - _ELEMENTWISE
    if unknown:
        raise RuntimeError(f"operators that fvcore does not count: {', '.join(sorted(unknown))}")
    return {name: int(macs) for name, macs in by_module.items()}


def _macs_by_module_torch(model: nn.Module, height: int, width: int) -> dict[str, int]:
    """Return multiply-adds of every module, as torch's own counter sees them on the meta device: at any size, at once.

    That counter counts two operations a multiply-add, and nothing at all for fused attention on a CPU.
    """
    model = copy.deepcopy(model).to("meta").eval().requires_grad_(False)  # its module tracker trips over gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, model.in_channels, height, width, device="meta"))
    root = type(model).__name__
    return {
        "" if name == root else name.removeprefix(f"{root}."): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
        if name != "Global"
    }


_COUNTERS = {"fvcore": _macs_by_module_fvcore, "torch": _macs_by_module_torch}


def count_macs(model: nn.Module, height: int, width: int, counter: str = "torch") -> dict[str, int]:
    """Return multiply-adds of one image by component, and "total".

    Args:
        model: a `Segmenter` (its modules' names tell the components).
        height, width: pixels.
        counter: "fvcore" (runs the model) or "torch" (on the meta device). The two agree: tested.

    Raises:
        RuntimeError: the counter met an operator that it cannot count, or the components are not the whole.
    """
    by_module = _COUNTERS[counter](model, height, width)
    macs = dict.fromkeys(COMPONENTS, 0)
    for name, _ in model.named_modules():
        parent = name.rpartition(".")[0]
        # the topmost modules that are one component as a whole: attn, mixer, mlp, downsample, ..., decoder
        if component(name) != "norms" and (not parent or component(parent) == "norms"):
            macs[component(name)] += by_module.get(name, 0)
    if sum(macs.values()) != by_module[""]:
        raise RuntimeError(f"components add up to {sum(macs.values())} multiply-adds, the whole is {by_module['']}")
    return {"total": by_module[""]} | macs


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Return numbers of parameters by component, and "total"."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[component(name)] += parameter.numel()
    return {"total": sum(counts.values())} | counts


def cost(model: nn.Module, height: int, width: int, counter: str = "torch") -> Cost:
    """Return parameters and gmacs by component for one image of ``height`` x ``width`` pixels; see `count_macs`."""
    macs = count_macs(model, height, width, counter)
    return Cost(height, width, count_parameters(model), {name: value / 1e9 for name, value in macs.items()})

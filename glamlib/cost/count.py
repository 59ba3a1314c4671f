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

COMPONENTS = (
    "patch_embedding",
    "w_msa",
    "g_msa",
    "mlp",
    "merging",
    "backbone",
    "upsampling",
    "decoder",
    "auxiliary",
    "norms",
)

# What fvcore meets in our models and we leave out on purpose. Anything else it cannot count is an error.
_ELEMENTWISE = {
    f"aten::{name}"
    for name in """
        add add_ mul mul_ sub div rsub pow square neg remainder floor_divide softmax gelu relu relu_ elu exp sin
        cos ne mean sum amax roll cat pad constant_pad_nd index expand expand_as clone stack repeat
        repeat_interleave movedim embedding arange meshgrid zeros ones scalar_tensor fill_ masked_fill
        masked_fill_ dropout feature_dropout adaptive_avg_pool2d adaptive_avg_pool3d upsample_bilinear2d
        upsample_bicubic2d _upsample_bicubic2d_aa max_pool2d layer_norm batch_norm dropout_ im2col lt unflatten
        unfold
    """.split()  # noqa: SIM905
}


@dataclass(frozen=True)
class Cost:
    """Cost of one model on one image of ``height`` x ``width`` pixels; both dicts have "total" and `COMPONENTS`.

    A volume has ``depth`` such slices, an image None.
    """

    height: int
    width: int
    parameters: dict[str, int]
    gmacs: dict[str, float]
    depth: int | None = None

    def to_json(self, name: str, classes: int) -> str:
        """Return the JSON of ``python -m glamlib cost NAME --json``."""
        depth = {} if self.depth is None else {"depth": self.depth}
        values = {"name": name} | depth | {"height": self.height, "width": self.width, "classes": classes}
        return json.dumps(values | {"parameters": self.parameters, "gmacs": self.gmacs})


def component(name: str) -> str:
    """Return the component that a module or parameter belongs to, by its qualified name.

    Blocks in a decoder (a UNet's, one for volumes) count as w_msa, g_msa and mlp like the encoder's; "upsampling" is
    what doubles its maps, and "decoder" the rest of any decoder. "auxiliary" is a head of training: it costs parameters
    and no multiply-adds. "backbone" is a whole backbone of the neighbours, whose parts have no common names.
    """
    parts = name.split(".")
    if parts[:2] in (["encoder", "body"], ["encoder", "pyramid"]):  # see glamlib.backbones.pyramid.Backbone
        return "backbone"
    for part, belongs in (
        ("auxiliary", "auxiliary"),
        ("ups", "upsampling"),
        ("patch_embed", "patch_embedding"),
        ("downsample", "merging"),
        ("attn", "w_msa"),
        ("mixer", "g_msa"),
        ("norm_mixer", "g_msa"),
        ("global_tokens", "g_msa"),
        ("position_table", "g_msa"),
        ("mlp", "mlp"),
    ):
        if part in parts:
            return belongs
    return "decoder" if parts[0] == "decoder" and "blocks" not in parts else "norms"


def _attention_macs(inputs: list, outputs: list) -> int:
    """Return multiply-adds of a fused attention: q k^T, and its product with v."""
    query, key, value = (list(v.type().sizes()) for v in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def macs_by_module_fvcore(model: nn.Module, *size: int) -> dict[str, int]:
    """Return multiply-adds of every module, as fvcore traces them. It runs the model, on the CPU."""
    from fvcore.nn import FlopCountAnalysis

    counter = FlopCountAnalysis(copy.deepcopy(model).cpu().eval(), torch.zeros(1, model.in_channels, *size))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    counter.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    counter.set_op_handle(**dict.fromkeys(_ELEMENTWISE, lambda inputs, outputs: 0))
    with torch.no_grad():
        by_module = counter.by_module()
        unknown = set(counter.unsupported_ops()) - _ELEMENTWISE
    if unknown:
        raise RuntimeError(f"operators that fvcore does not count: {', '.join(sorted(unknown))}")
    return {name: int(macs) for name, macs in by_module.items()}


def macs_by_module(model: nn.Module, *size: int) -> dict[str, int]:
    """Return multiply-adds of every module, as torch's own counter sees them on the meta device: at any size, at once.

    That counter counts two operations a multiply-add, and nothing at all for fused attention on a CPU.
    """
    model = copy.deepcopy(model).to("meta").eval().requires_grad_(False)  # its module tracker trips over gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, model.in_channels, *size, device="meta"))
    root = type(model).__name__
    return {
        "" if name == root else name.removeprefix(f"{root}."): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
        if name != "Global"
    }


def own_macs(by_module: dict[str, int]) -> dict[str, int]:
    """Return what each module computes itself, without the modules inside it."""
    own = dict(by_module)
    for name, macs in by_module.items():
        parent = name
        while parent:
            parent = parent.rpartition(".")[0]
            if parent in own:
                own[parent] -= macs
                break
    return own


_COUNTERS = {"fvcore": macs_by_module_fvcore, "torch": macs_by_module}


def count_macs(
    model: nn.Module, height: int, width: int, counter: str = "torch", depth: int | None = None
) -> dict[str, int]:
    """Return multiply-adds of one image or volume by component, and "total".

    Args:
        model: a `Segmenter` or `VolumeSegmenter` (its modules' names tell the components).
        height, width: pixels.
        counter: "fvcore" (runs the model) or "torch" (on the meta device). The two agree: tested.
        depth: slices of a volume; None for an image.

    Raises:
        RuntimeError: the counter met an operator that it cannot count, or the components are not the whole.
    """
    by_module = _COUNTERS[counter](model, *(() if depth is None else (depth,)), height, width)
    macs = dict.fromkeys(COMPONENTS, 0)
    for name, own in own_macs(by_module).items():
        if own:
            macs[component(name)] += own
    if macs["norms"]:  # a norm has none: this is work in a module that no component is known for
        known = sum(macs.values()) - macs["norms"]
        raise RuntimeError(f"components add up to {known} multiply-adds, the whole is {by_module['']}")
    return {"total": by_module[""]} | macs


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Return numbers of parameters by component, and "total"."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[component(name)] += parameter.numel()
    return {"total": sum(counts.values())} | counts


def cost(model: nn.Module, height: int, width: int, counter: str = "torch", depth: int | None = None) -> Cost:
    """Return parameters and gmacs by component for one image of ``height`` x ``width`` pixels, or a volume of ``depth``
    such slices; see `count_macs`.
    """
    macs = count_macs(model, height, width, counter, depth)
    gmacs = {name: value / 1e9 for name, value in macs.items()}
    return Cost(height, width, count_parameters(model), gmacs, depth)

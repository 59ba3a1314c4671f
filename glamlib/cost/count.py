"""What a model costs: parameters and multiply-adds by component, counted on the model itself.

A multiply-add is one multiplication and one addition of a convolution or a matrix product; "gmacs" are 1e9 of them.
The published "FLOPs" of Swin and related models are multiply-adds. As there, element-wise work is left out.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

COMPONENTS = (
    *("patch_embedding", "w_msa", "g_msa", "mlp", "merging", "backbone"),
    *("upsampling", "decoder", "auxiliary", "norms"),
)
# The first part of a module's name that is listed here decides its component.
_COMPONENT_OF = {
    "auxiliary": "auxiliary",
    "ups": "upsampling",
    "patch_embed": "patch_embedding",
    "downsample": "merging",
    "attn": "w_msa",
    **dict.fromkeys(("mixer", "norm_mixer", "global_tokens", "position_table"), "g_msa"),
    "mlp": "mlp",
}


@dataclass(frozen=True)
class Cost:
    """Cost of a model on one image, or a volume of ``depth`` slices; both dicts have "total" and `COMPONENTS`."""

    height: int
    width: int
    parameters: dict[str, int]
    gmacs: dict[str, float]
    depth: int | None = None


def component(name: str) -> str:
    """Return the component of a module or parameter, given its qualified name.

    Blocks of a decoder count like the encoder's. "upsampling" is what doubles its maps, "auxiliary" a training head
    (parameters only), "backbone" all of a non-Swin backbone.
    """
    parts = name.split(".")
    if parts[:2] in (["encoder", "body"], ["encoder", "pyramid"]):  # see glamlib.backbones.segmenter.Backbone
        return "backbone"
    for part, belongs in _COMPONENT_OF.items():
        if part in parts:
            return belongs
    return "decoder" if parts[0] == "decoder" and "blocks" not in parts else "norms"


def macs_by_module(model: nn.Module, *size: int) -> dict[str, int]:
    """Return multiply-adds of every module, its children included, on one image or volume of ``size``; "" is the whole.

    The model runs on the meta device: no arithmetic, and fused attention is counted, which it is not on a CPU.
    """
    model = copy.deepcopy(model).to("meta").eval().requires_grad_(False)  # the counter's hooks fail with gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, model.in_channels, *size, device="meta"))
    root, counts = type(model).__name__, counter.get_flop_counts()
    del counts["Global"]
    # torch counts two operations a multiply-add
    return {name.removeprefix(root).removeprefix("."): sum(flops.values()) // 2 for name, flops in counts.items()}


def by_component(by_module: dict[str, int]) -> dict[str, int]:
    """Return the multiply-adds of `macs_by_module` by component, and "total"; RuntimeError for work in none of them."""
    macs = dict.fromkeys(COMPONENTS, 0)
    for name, number in by_module.items():
        macs[component(name)] += number
        parent = name
        while parent:  # what a module does is in the number of the next counted one around it, too
            parent = parent.rpartition(".")[0]
            if parent in by_module:
                macs[component(parent)] -= number
                break
    if macs["norms"]:  # a norm has none: this is work in a module of no known component
        raise RuntimeError(f"{macs['norms']} of {by_module['']} multiply-adds are of no component")
    return {"total": by_module[""]} | macs


def count_macs(model: nn.Module, height: int, width: int, depth: int | None = None) -> dict[str, int]:
    """Return multiply-adds by component, and "total", of one image, or of a volume of ``depth`` slices."""
    return by_component(macs_by_module(model, *(() if depth is None else (depth,)), height, width))


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Return numbers of parameters by component, and "total"."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[component(name)] += parameter.numel()
    return {"total": sum(counts.values())} | counts


def cost(model: nn.Module, height: int, width: int, depth: int | None = None) -> Cost:
    """Return parameters and gmacs by component of one image, or of a volume of ``depth`` slices."""
    gmacs = {name: macs / 1e9 for name, macs in count_macs(model, height, width, depth).items()}
    return Cost(height, width, count_parameters(model), gmacs, depth)

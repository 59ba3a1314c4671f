"""State dicts with the released code's names, loaded into our modules of released behaviour."""

import re
from typing import NamedTuple

from torch import Tensor, nn

from glamlib.errors import InputError
from glamlib.layers.block import GlamBlock

# What the released code holds and never reads, and we do not have: constants that we compute; a UNet's decode head,
# which is an identity; for volumes, a downsampling after the last stage and all heads of deep supervision but one
_UNUSED = re.compile(
    r"relative_position_index$|attn_mask$|proj_shortcut\.|layers_patch_expand\.|upsample_shortcut\.|"
    r"^decode_head\.conv_seg\.|^model_down\.layers\.\d\.downsample\.|^final\.[2-9]\."
)
_TOKENS = (
    (r"(^|\.)gt_attn\.", r"\1mixer."),
    (r"(^|\.)global_token$", r"\1global_tokens"),
    (r"(^|\.)pe$", r"\1position_table.pe"),
)
_ENCODER = (
    # the released merging is at the end of a stage, ours (and timm's) at the start of the next
    (r"^(encoder\.)?layers\.(\d+)\.downsample\.", lambda m: f"{m[1] or ''}layers.{int(m[2]) + 1}.downsample."),
    (r"^(encoder\.)?norm(\d)\.", r"\1norms.\2."),
)
_UPERNET = ((r"^backbone\.", "encoder."), (r"^decode_head\.", "decoder."), (r"^auxiliary_head\.", "auxiliary."))
_UNET = (
    (r"^(backbone\.)?swin_unet\.", ""),
    (r"^(patch_embed|layers)\.", r"encoder.\1."),
    (r"^norm\.", "encoder.norms.0."),
    (r"^(norm_up|up|output|concat_back_dim|layers_up|layers_cross_attention_up)\.", r"decoder.\1."),
)
_UNET_PLAIN = (  # its lists have a first entry that only expands
    (r"^decoder\.layers_up\.0\.", "decoder.ups.0."),
    (r"^decoder\.layers_up\.(\d)\.upsample\.", r"decoder.ups.\1."),
    (r"^decoder\.(layers_up|concat_back_dim)\.(\d)\.", lambda m: f"decoder.{m[1]}.{int(m[2]) - 1}."),
)
_UNET_NLU = ((r"^decoder\.layers_cross_attention_up\.(\d)\.blocks\.0\.", r"decoder.ups.\1."),)
_VOLUME = (
    (r"^encoder\.layers\.(\d)\.Upsample\.", r"decoder.ups.\1."),  # sic: the released decoder is called encoder
    (r"^encoder\.layers\.", "decoder.layers_up."),
    (r"^model_down\.", "encoder."),
    (r"^final\.0\.up\.", "decoder.head."),
    (r"^final\.(\d)\.up\.", lambda m: f"auxiliary.{int(m[1]) - 1}."),
)


class Loaded(NamedTuple):
    """What became of the released keys: ``used``, or ``unused`` because the released code never reads them."""

    used: tuple[str, ...]
    unused: tuple[str, ...]


def _rules(keys: str) -> tuple:
    """Return the renaming rules for these keys: of a network for volumes, a UNet, a UPerNet or a part of a network."""
    if "model_down." in keys:
        return _VOLUME + _ENCODER + _TOKENS
    if "swin_unet." in keys:
        return _UNET + (_UNET_NLU if "layers_cross_attention_up." in keys else _UNET_PLAIN) + _ENCODER + _TOKENS
    # a block or stage alone has norms of other meaning than an encoder's
    return _UPERNET + (_ENCODER if "patch_embed." in keys else ()) + _TOKENS


def load_released(model: nn.Module, state_dict: dict[str, Tensor]) -> Loaded:
    """Load weights that have the released code's names; return which keys were used and which not.

    Args:
        model: a `Segmenter`, a part of one (encoder, stage, block, attention, decoder), or a `VolumeSegmenter`, built
            with ``behaviour="released"``. A network for volumes has the windows that the released one ran with: its
            code cuts them, when it is built, to maps of the volume it is for.
        state_dict: of the released network or of the corresponding part.

    Raises:
        InputError: not a state dict; a key is left over or gives a weight again, one of the model's is missing, or a
            shape differs; names the first. The model is then as it was.
    """
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()
    ):
        raise InputError("not a state dict, which has a tensor for each name (a checkpoint may hold one within)")
    own, modules = model.state_dict(), dict(model.named_modules())
    rules = _rules("\n".join(state_dict))
    renamed, unused, bad = {}, [], []
    for key, value in state_dict.items():
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        block = modules.get(name.partition(".mixer.")[0])
        if name in own and name not in renamed:
            renamed[name] = value
            # a table of positions may have other rows: theirs follow from the windows before they were cut
            first = 1 if name.endswith("position_table.pe") else 0
            if own[name].shape[first:] != value.shape[first:]:
                bad.append(f"{key} ({list(value.shape)}, the model has {list(own[name].shape)})")
        elif _UNUSED.search(key) or (".mixer." in name and isinstance(block, GlamBlock) and block.is_last):
            unused.append(key)  # the second: the G-MSA of a stage's last block, where ours, rightly, has none
        else:
            bad.append(f"{key} ({'twice' if name in renamed else 'left over'})")
    if bad := bad + [f"{name} (missing)" for name in own if name not in renamed]:
        raise InputError(f"the released weights do not fit, {len(bad)} keys; first: {', '.join(bad[:3])}")
    for name, value in renamed.items():
        if own[name].shape != value.shape:
            model.get_submodule(name.removesuffix(".pe")).pe = nn.Parameter(own[name].new_empty(value.shape))
    model.load_state_dict(renamed)
    return Loaded(tuple(key for key in state_dict if key not in unused), tuple(unused))

"""State dicts with the released code's names, loaded into our modules of released behaviour."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from glamlib.errors import InputError
from glamlib.layers.block import GlamBlock

_Rule = tuple[str, str | Callable[[re.Match], str]]

# Held by the released code and never used, where we have no such weights: a UNet's decode head is an identity; a
# network for volumes has a downsampling after its last stage, and drops all heads of deep supervision but one
_UNUSED = re.compile(
    r"proj_shortcut\.|layers_patch_expand\.|upsample_shortcut\.|^decode_head\.conv_seg\.|"
    r"^model_down\.layers\.\d\.downsample\.|^final\.[2-9]\."
)
# Constants that we compute
_COMPUTED = re.compile(r"relative_position_index$|attn_mask$")

_TOKENS: tuple[_Rule, ...] = (
    (r"(^|\.)gt_attn\.", r"\1mixer."),
    (r"(^|\.)global_token$", r"\1global_tokens"),
    (r"(^|\.)pe$", r"\1position_table.pe"),
)
_ENCODER: tuple[_Rule, ...] = (
    # the released merging is at the end of a stage, ours (and timm's) at the start of the next
    (r"^(encoder\.)?layers\.(\d+)\.downsample\.", lambda m: f"{m[1] or ''}layers.{int(m[2]) + 1}.downsample."),
    (r"^(encoder\.)?norm(\d)\.", r"\1norms.\2."),
)
_UPERNET: tuple[_Rule, ...] = (
    (r"^backbone\.", "encoder."),
    (r"^decode_head\.", "decoder."),
    (r"^auxiliary_head\.", "auxiliary."),
)
_UNET: tuple[_Rule, ...] = (
    (r"^(backbone\.)?swin_unet\.", ""),
    (r"^(patch_embed|layers)\.", r"encoder.\1."),
    (r"^norm\.", "encoder.norms.0."),
    (r"^(norm_up|up|output|concat_back_dim|layers_up|layers_cross_attention_up)\.", r"decoder.\1."),
)
_UNET_PLAIN: tuple[_Rule, ...] = (  # its lists have a first entry that only expands
    (r"^decoder\.layers_up\.0\.", "decoder.ups.0."),
    (r"^decoder\.layers_up\.(\d)\.upsample\.", r"decoder.ups.\1."),
    (r"^decoder\.layers_up\.(\d)\.", lambda m: f"decoder.layers_up.{int(m[1]) - 1}."),
    (r"^decoder\.concat_back_dim\.(\d)\.", lambda m: f"decoder.concat_back_dim.{int(m[1]) - 1}."),
)
_UNET_NLU: tuple[_Rule, ...] = ((r"^decoder\.layers_cross_attention_up\.(\d)\.blocks\.0\.", r"decoder.ups.\1."),)
_VOLUME: tuple[_Rule, ...] = (
    (r"^encoder\.layers\.(\d)\.Upsample\.", r"decoder.ups.\1."),  # sic: the released decoder is called encoder
    (r"^encoder\.layers\.", "decoder.layers_up."),
    (r"^model_down\.", "encoder."),
    (r"^final\.0\.up\.", "decoder.head."),
    (r"^final\.(\d)\.up\.", lambda m: f"auxiliary.{int(m[1]) - 1}."),
)


@dataclass(frozen=True)
class Loaded:
    """What became of a released state dict's keys: ``used``, or ``unused``, because nothing ever reads them."""

    used: tuple[str, ...]
    unused: tuple[str, ...]


def _rules(keys: list[str]) -> tuple[_Rule, ...]:
    """Return the renaming rules for a state dict of these keys: of a network for volumes, a UNet, a UPerNet, or a part
    of a network.
    """
    if any(key.startswith("model_down.") for key in keys):
        return _VOLUME + _ENCODER + _TOKENS
    if not any("swin_unet." in key for key in keys):
        # a block or stage alone has norms of other meaning than an encoder's
        return _UPERNET + (_ENCODER if any("patch_embed." in key for key in keys) else ()) + _TOKENS
    nlu = any("layers_cross_attention_up." in key for key in keys)
    return _UNET + (_UNET_NLU if nlu else _UNET_PLAIN) + _ENCODER + _TOKENS


def _our_name(key: str, rules: tuple[_Rule, ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def load_released(model: nn.Module, state_dict: dict[str, Tensor]) -> Loaded:
    """Load weights that have the released code's names.

    Args:
        model: a `Segmenter`, a part of one (encoder, stage, block, attention, decoder), or a `VolumeSegmenter`, built
            with ``behaviour="released"``. A network for volumes has the windows that the released one ran with: its
            code cuts them, when it is built, to maps of the volume it is for.
        state_dict: of the released network or of the corresponding part.

    Returns:
        Which keys were used and which not; the unused are those that the released code itself never reads.

    Raises:
        InputError: not a state dict; a key is left over or gives a weight again, one of the model's is missing, or a
            shape differs; names the first.
    """
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()
    ):
        raise InputError("not a state dict, which has a tensor for each name (a checkpoint may hold one within)")
    rules = _rules(list(state_dict))
    own = model.state_dict()
    blocks = dict(model.named_modules())
    renamed: dict[str, Tensor] = {}
    used, unused, left, shapes = [], [], [], []
    for key, value in state_dict.items():
        name = _our_name(key, rules)
        if name in renamed:
            left.append(f"{key} (twice)")  # another key has given this weight
        elif name in own:
            table = name.endswith("position_table.pe") and own[name].shape[1:] == value.shape[1:]
            if own[name].shape != value.shape and not table:
                shapes.append(f"{key} ({list(value.shape)}, the model has {list(own[name].shape)})")
            renamed[name] = value
            used.append(key)
        elif _UNUSED.search(key) or _COMPUTED.search(key) or _is_last_mixer(name, blocks):
            unused.append(key)
        else:
            left.append(f"{key} (left over)")
    missing = [f"{name} (missing)" for name in own if name not in renamed]
    bad = shapes + left + missing
    if bad:
        raise InputError(
            f"the released weights do not fit: {len(left)} left over, {len(missing)} missing, {len(shapes)} of another "
            f"shape; first: {', '.join(bad[:3])}"
        )
    for name, value in renamed.items():
        if own[name].shape != value.shape:  # a table of positions: its rows follow from the windows before the cut
            model.get_submodule(name.removesuffix(".pe")).pe = nn.Parameter(own[name].new_empty(value.shape))
    model.load_state_dict(renamed)
    return Loaded(tuple(used), tuple(unused))


def _is_last_mixer(name: str, modules: dict[str, nn.Module]) -> bool:
    """True for a G-MSA of a stage's last block where our block, rightly, has none."""
    block = modules.get(name.partition(".mixer.")[0])
    return ".mixer." in name and isinstance(block, GlamBlock) and block.is_last

"""Other libraries' Swin with the weights of ours: timm's, and Hugging Face's where transformers (5 or later) is there.

All give the map of the last stage without a norm. Where a map is no multiple of the window, timm rolls first and pads
after, so its shifted windows at the border differ from ours. The work is the same.
"""

import re
from importlib.util import find_spec

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from glamlib.models.config import ModelConfig

_SHAPE = ("window_size", "embed_dim", "depths", "num_heads")
_HUGGING_FACE = (
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^patch_embed\.norm", "embeddings.norm"),
    (r"^layers", "encoder.layers"),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"attn\.proj", "attention.o_proj"),
    (r"attn\.rel", "attention.relative_position_bias.rel"),
)


def timm_swin(config: ModelConfig, weights: dict[str, Tensor], size: int, fused: bool) -> nn.Module:
    """Return timm's Swin for images of ``size`` x ``size`` pixels: (B, 3, H, W) to (B, H / 32, W / 32, C)."""
    shape = {name: getattr(config, name) for name in _SHAPE}
    swin = SwinTransformer(size, num_classes=0, global_pool="", drop_path_rate=config.drop_path, **shape)
    swin.norm = nn.Identity()
    swin.load_state_dict(weights)
    for module in swin.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return swin


def _hugging_face_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        # our merging starts a stage, theirs ends the one before
        name = re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        if "attn.qkv" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.{letter}_proj")] = part
        else:
            renamed[name] = value
    return renamed


def hugging_face_swin(config: ModelConfig, weights: dict[str, Tensor], size: int, fused: bool) -> nn.Module:
    """Return Hugging Face's Swin for images of ``size`` x ``size`` pixels: (B, 3, H, W) to (B, H / 32, W / 32, C)."""
    from transformers import SwinConfig, SwinModel  # optional, and slow to import

    shape = {name: getattr(config, name) for name in _SHAPE}
    settings = SwinConfig(image_size=size, drop_path_rate=config.drop_path, layer_norm_eps=1e-5, **shape)
    settings._attn_implementation = "sdpa" if fused else "eager"
    swin = SwinModel(settings, add_pooling_layer=False)
    swin.layernorm = nn.Identity()
    swin.load_state_dict(_hugging_face_weights(weights), strict=True)
    swin.register_forward_hook(lambda module, inputs, outputs: outputs.last_hidden_state.unflatten(1, (size // 32, -1)))
    return swin


LIBRARIES = {"timm": timm_swin}
if find_spec("transformers"):
    LIBRARIES["transformers"] = hugging_face_swin

"""The table of named models: create_model, list_models."""

from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from glamlib.backbones.config import BACKBONES, BackboneConfig
from glamlib.backbones.segmenter import BackboneSegmenter
from glamlib.backbones.weights import load_weights
from glamlib.errors import Count, InputError, check, one_of
from glamlib.models.config import DECODERS, Config, ModelConfig, VolumeConfig
from glamlib.models.conv_unet import ConvConfig, ConvUNet, ConvVolumeConfig
from glamlib.models.segmenter import Segmenter
from glamlib.models.unet import UNetDecoder
from glamlib.models.volumes import VolumeSegmenter
from glamlib.released import parts_of

# Tiny, Small and Base are the paper's (and Swin's); Nano is ours, for a CPU.
_SIZES = {
    "nano": ModelConfig(
        embed_dim=32,
        depths=(2, 2, 2, 2),
        num_heads=(2, 4, 8, 16),
        window_size=4,
        decoder_channels=64,
        weight_init="xavier",
    ),
    "tiny": ModelConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), drop_path=0.3),
    "small": ModelConfig(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24), drop_path=0.3),
    "base": ModelConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path=0.3),
}
# nnFormer as the released code has it built in (its yaml sizes are ignored); Nano is ours. At 32 voxels a side the
# windows of Nano's first stage number 4 along each axis.
_VOLUMES = {
    "nnformer": VolumeConfig(
        embed_dim=192, depths=(2, 2, 2, 2), num_heads=(6, 12, 24, 48), patch_size=(2, 4, 4), drop_path=0.2
    ),
    "nnformer_nano": VolumeConfig(embed_dim=16, depths=(2, 2, 2), num_heads=(1, 2, 4), weight_init="xavier"),
}
_FAMILIES = {"swin": 0, "glam_swin": 10}  # global tokens per window unless overridden; 10 is the paper's usual number
MODELS: dict[str, Config] = {
    f"{family}_{size}_{decoder}": replace(config, num_global_tokens=tokens, decoder=decoder)
    for family, tokens in _FAMILIES.items()
    for size, config in _SIZES.items()
    for decoder in DECODERS
}
MODELS |= _VOLUMES | {f"glam_{name}": replace(config, num_global_tokens=10) for name, config in _VOLUMES.items()}
MODELS |= {f"{name}_upernet": config for name, config in BACKBONES.items()}
# At the cost of Swin Nano with a UPerNet of 32 channels, and of nnFormer Nano
MODELS |= {
    "conv_unet": ConvConfig(widths=(16, 32, 64, 128, 256)),
    "conv_unet_3d": ConvVolumeConfig(widths=(16, 32, 64)),
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the models that match a shell-style pattern, sorted."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def model_config(name: str, **overrides: object) -> Config:
    """Return the configuration of a named model with overrides; InputError for an unknown name, key or bad value."""
    if not isinstance(name, str) or name not in MODELS:
        raise one_of("model", name, list_models())
    config = MODELS[name]
    allowed = [field.name for field in fields(config) if field.name not in config.fixed]
    for key in overrides:
        if key not in allowed:
            raise one_of(f"override for {name}:", key, allowed)
    return replace(config, **overrides)


def create_model(
    name: str, *, num_classes: int, in_channels: int = 3, pretrained: bool | str | Path = False, **overrides: object
) -> nn.Module:
    """Build a model: ``(B, in_channels, H, W)`` of any size to logits ``(B, num_classes, H, W)``; volumes have D, too.

    Args:
        name: one of `list_models`.
        num_classes, in_channels: channels of the logits, and of the images or volumes.
        pretrained: True for timm's ImageNet weights of the same size, or a local file of such weights (safetensors, or
            a torch file, read with weights_only).
        **overrides: fields of `ModelConfig`, for volumes of `VolumeConfig`, for the neighbours of `BackboneConfig`.

    Raises:
        InputError: unknown name or override, a value of the wrong type or out of range, weights that do not fit.
    """
    check("num_classes", num_classes, Count)
    check("in_channels", in_channels, Count)
    if not isinstance(pretrained, bool | str | Path):
        raise InputError(f"pretrained={pretrained!r}: must be True, False or the path of a weights file")
    config = model_config(name, **overrides)
    if isinstance(config, VolumeConfig | ConvConfig):
        if pretrained is not False:
            raise InputError(f"pretrained={pretrained!r}: there are no pretrained weights for {name}; leave it out")
        parts = (parts_of(config),) if isinstance(config, VolumeConfig) else ()
        model = (VolumeSegmenter if parts else ConvUNet)(config, num_classes, in_channels, *parts)
    elif isinstance(config, BackboneConfig):
        model, backbone = BackboneSegmenter(config, num_classes, in_channels), name.removesuffix("_upernet")
    else:
        model = Segmenter(config, num_classes, in_channels, parts_of(config))
        backbone = "_".join(name.removeprefix("glam_").split("_")[:2])  # of Swin, of the same size
    if pretrained is not False:
        load_weights(model.encoder, backbone, pretrained)
        if isinstance(model.decoder, UNetDecoder):
            model.decoder.start_from(model.encoder)
    model.made_by = name, overrides  # what a weights file says of it
    return model

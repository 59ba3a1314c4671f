"""create_backbone, list_backbones: backbones by name."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from glamlib.backbones.config import BackboneConfig
from glamlib.backbones.crossvit import crossvit
from glamlib.backbones.cvt import cvt
from glamlib.backbones.from_timm import pvt_v2, twins, vit
from glamlib.backbones.pvt import pvt
from glamlib.backbones.t2t_vit import t2t_vit
from glamlib.backbones.table import BACKBONES
from glamlib.backbones.tnt import tnt
from glamlib.backbones.vil import vil
from glamlib.backbones.weights import load_weights
from glamlib.errors import InputError, one_of
from glamlib.models.encoder import Encoder, init_linear


def swin(config: BackboneConfig, in_channels: int) -> Encoder:
    """Return this library's Swin: timm's does not mask rightly where windows do not divide the map."""
    return Encoder(
        in_channels,
        config.embed_dims[0],
        config.depths,
        config.num_heads,
        config.window_size,
        mlp_ratio=config.mlp_ratios[0],
        drop_path=config.drop_path,
    )


_BUILDERS: dict[str, Callable[[BackboneConfig, int], nn.Module]] = {
    "swin": swin,
    "pvt": pvt,
    "pvt_v2": pvt_v2,
    "twins_pcpvt": twins,
    "twins_svt": twins,
    "vil": vil,
    "cvt": cvt,
    "vit": vit,
    "t2t_vit": t2t_vit,
    "tnt": tnt,
    "crossvit": crossvit,
}


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names of the backbones that match a shell-style pattern, sorted."""
    return sorted(name for name in BACKBONES if fnmatchcase(name, pattern))


def build(config: BackboneConfig, in_channels: int) -> nn.Module:
    """Return the backbone of a configuration: see `create_backbone`."""
    backbone = _BUILDERS[config.backbone](config, in_channels)
    init_linear(backbone, config.weight_init)
    return backbone


def create_backbone(
    name: str, in_channels: int = 3, *, pretrained: bool | str | Path = False, **overrides: object
) -> nn.Module:
    """Build a backbone by name.

    Args:
        name: one of `list_backbones`.
        in_channels: channels of the images.
        pretrained: True for timm's ImageNet weights, or a file of weights: see `glamlib.backbones.weights`.
        **overrides: fields of `BackboneConfig`.

    Returns:
        A module with ``dims``, the channels of each level, that gives for images ``(B, in_channels, H, W)`` of any size
        the maps ``(B, dims[i], ceil(H / s), ceil(W / s))`` of strides s 4, 8, 16 and 32, as a list.

    Raises:
        InputError: unknown name or override, a value of the wrong type or out of range, weights that do not fit.
    """
    if name not in BACKBONES:
        raise one_of("backbone", name, list_backbones())
    if type(in_channels) is not int or in_channels < 1:
        raise InputError(f"in_channels={in_channels!r}: must be an integer of at least 1")
    config = BACKBONES[name]
    backbone = build(config.with_overrides(name, config.overrides(), overrides), in_channels)
    if pretrained is not False:
        load_weights(backbone, name, pretrained)
    return backbone

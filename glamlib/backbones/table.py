"""The named backbones: the published sizes, and for each family a nano form of ours, for a CPU.

A nano form has the widths and depths of ``swin_nano``, as far as its family has such. Its linear layers start as that
one's do, too. Published sizes are those of the papers and repositories that the modules of this package name.
"""

from dataclasses import replace

from glamlib.backbones.config import BackboneConfig

_PYRAMID = {"embed_dims": (64, 128, 320, 512), "num_heads": (1, 2, 5, 8), "mlp_ratios": (8, 8, 4, 4)}
_NANO_PYRAMID = {
    "embed_dims": (32, 64, 128, 256),
    "num_heads": (2, 4, 8, 16),
    "mlp_ratios": (4, 4, 4, 4),
    "depths": (2, 2, 2, 2),
    "window_size": 4,
}


def _swin(dim: int, depth: int) -> BackboneConfig:
    dims, heads = tuple(dim * 2**i for i in range(4)), tuple(dim // 32 * 2**i for i in range(4))
    return BackboneConfig("swin", dims, (2, 2, depth, 2), heads, (4, 4, 4, 4))


def _pvt(*depths: int) -> BackboneConfig:
    return BackboneConfig("pvt", depths=depths, **_PYRAMID)


def _pvt_v2(*depths: int, **sizes: tuple[int, ...]) -> BackboneConfig:
    return BackboneConfig("pvt_v2", depths=depths, **(_PYRAMID | sizes))


def _pcpvt(*depths: int) -> BackboneConfig:
    return BackboneConfig("twins_pcpvt", depths=depths, **_PYRAMID)


def _svt(dim: int, *depths: int) -> BackboneConfig:
    dims, heads = tuple(dim * 2**i for i in range(4)), tuple(dim // 32 * 2**i for i in range(4))
    return BackboneConfig("twins_svt", dims, depths, heads, (4, 4, 4, 4))


def _vil(dims: tuple[int, ...], heads: tuple[int, ...], *depths: int) -> BackboneConfig:
    return BackboneConfig("vil", dims, depths, heads, (4, 4, 4, 4))


def _cvt(*depths: int) -> BackboneConfig:
    return BackboneConfig("cvt", (64, 192, 384), depths, (1, 3, 6), (4, 4, 4))


def _vit(dim: int) -> BackboneConfig:
    return BackboneConfig("vit", (dim,), (12,), (dim // 64,), (4,))


def _t2t_vit(dim: int, depth: int) -> BackboneConfig:
    return BackboneConfig("t2t_vit", (64, dim), (depth,), (dim // 64,), (3,))


def _tnt(inner: int, outer: int) -> BackboneConfig:
    return BackboneConfig("tnt", (inner, outer), (12,), (4, outer // 64), (4,))


def _crossvit(dim: int, depth: int, heads: int, mlp_ratio: int) -> BackboneConfig:
    return BackboneConfig("crossvit", (dim, 2 * dim), (1, depth), (heads, heads), (mlp_ratio, mlp_ratio))


_PUBLISHED = {
    "swin_tiny": _swin(96, 6),
    "swin_small": _swin(96, 18),
    "swin_base": _swin(128, 18),
    "pvt_tiny": _pvt(2, 2, 2, 2),
    "pvt_small": _pvt(3, 4, 6, 3),
    "pvt_medium": _pvt(3, 4, 18, 3),
    "pvt_large": _pvt(3, 8, 27, 3),
    "pvt_v2_b0": _pvt_v2(2, 2, 2, 2, embed_dims=(32, 64, 160, 256)),
    "pvt_v2_b1": _pvt_v2(2, 2, 2, 2),
    "pvt_v2_b2": _pvt_v2(3, 4, 6, 3),
    "pvt_v2_b3": _pvt_v2(3, 4, 18, 3),
    "pvt_v2_b4": _pvt_v2(3, 8, 27, 3),
    "pvt_v2_b5": _pvt_v2(3, 6, 40, 3, mlp_ratios=(4, 4, 4, 4)),
    "twins_pcpvt_small": _pcpvt(3, 4, 6, 3),
    "twins_pcpvt_base": _pcpvt(3, 4, 18, 3),
    "twins_pcpvt_large": _pcpvt(3, 8, 27, 3),
    "twins_svt_small": _svt(64, 2, 2, 10, 4),
    "twins_svt_base": _svt(96, 2, 2, 18, 2),
    "twins_svt_large": _svt(128, 2, 2, 18, 2),
    "vil_tiny": _vil((48, 96, 192, 384), (1, 3, 3, 6), 1, 1, 9, 1),
    "vil_small": _vil((96, 192, 384, 768), (3, 3, 6, 12), 1, 2, 8, 1),
    "vil_medium_deep": _vil((96, 192, 384, 768), (3, 3, 6, 12), 1, 4, 16, 1),
    "cvt_13": _cvt(1, 2, 10),
    "cvt_21": _cvt(1, 4, 16),
    "vit_small": _vit(384),
    "vit_base": _vit(768),
    "t2t_vit_14": _t2t_vit(384, 14),
    "t2t_vit_19": _t2t_vit(448, 19),
    "t2t_vit_24": _t2t_vit(512, 24),
    "tnt_s": _tnt(24, 384),
    "tnt_b": _tnt(40, 640),
    "crossvit_small": _crossvit(192, 4, 6, 4),
    "crossvit_base": _crossvit(384, 4, 12, 4),
    "crossvit_15": _crossvit(192, 5, 6, 3),
    "crossvit_18": _crossvit(224, 6, 7, 3),
}
_NANO = {
    **{
        f"{name}_nano": BackboneConfig(name, **_NANO_PYRAMID)
        for name in ("swin", "pvt", "pvt_v2", "twins_pcpvt", "twins_svt", "vil")
    },
    "cvt_nano": BackboneConfig("cvt", (32, 64, 128), (2, 2, 4), (2, 4, 8), (4, 4, 4)),
    "vit_nano": BackboneConfig("vit", (128,), (8,), (8,), (4,)),
    "t2t_vit_nano": BackboneConfig("t2t_vit", (32, 128), (8,), (8,), (4,)),
    "tnt_nano": BackboneConfig("tnt", (16, 128), (8,), (2, 8), (4,)),
    "crossvit_nano": BackboneConfig("crossvit", (64, 128), (1, 2), (4, 8), (4, 4)),
}
# Drop path: what most of the papers train with on ImageNet
BACKBONES: dict[str, BackboneConfig] = {
    **{name: replace(config, drop_path=0.1) for name, config in _PUBLISHED.items()},
    **{name: replace(config, decoder_channels=64, weight_init="xavier") for name, config in _NANO.items()},
}

"""BackboneConfig: the sizes of a backbone and of the decoder on it. BACKBONES: the named ones, from ``sizes.csv``."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from glamlib.errors import Count, InputError, Range
from glamlib.models.config import Config, Counts, DecoderChannels, Rate, WeightInit

STRIDES = (4, 8, 16, 32)  # of the levels of a pyramid, in pixels
_STAGES = tuple(f"stage {i}" for i in range(4))
_BRANCHES = ("small patches", "large patches")
# What the numbers of a family's embed_dims, num_heads, and depths and mlp_ratios are for
FAMILIES = {
    **dict.fromkeys(("pvt", "pvt_v2", "twins_pcpvt", "twins_svt", "vil"), (_STAGES,) * 3),
    "cvt": (_STAGES[:3],) * 3,
    "vit": (("all",),) * 3,
    "t2t_vit": (("tokens-to-token", "transformer"), ("transformer",), ("transformer",)),
    "tnt": (("inner", "outer"), ("inner", "outer"), ("both",)),
    "crossvit": (_BRANCHES,) * 3,
}


@dataclass(frozen=True)
class BackboneConfig(Config):
    """One backbone, and UPerNet on it.

    Attributes:
        backbone: its family, a key of `FAMILIES`, which says what the numbers below are for.
        embed_dims, num_heads, depths: channels, attention heads and blocks.
        mlp_ratios: hidden channels of the MLPs over channels, as many as ``depths``.
        window_size: side in patches of Twins-SVT's groups or ViL's chunks; others have none.
        drop_path, weight_init: as in `glamlib.models.config.StagedConfig`. decoder_channels: UPerNet's.
    """

    backbone: Literal[*FAMILIES]
    embed_dims: tuple[Annotated[int, Range(4)], ...]  # a simple pyramid has a quarter
    depths: Counts
    num_heads: Counts
    mlp_ratios: Counts
    window_size: Count = 7
    drop_path: Rate = 0.0
    decoder_channels: DecoderChannels = 512
    weight_init: WeightInit = "swin"

    def __post_init__(self) -> None:
        super().__post_init__()
        dims, heads, depths = FAMILIES[self.backbone]
        for name, parts in (("embed_dims", dims), ("num_heads", heads), ("depths", depths), ("mlp_ratios", depths)):
            values = list(getattr(self, name))
            if len(values) != len(parts):
                raise InputError(f"{name}={values}: must be {len(parts)} for {self.backbone} ({', '.join(parts)})")
        self.check_heads(self.embed_dims[-len(heads) :], heads)
        if self.backbone == "twins_svt" and self.window_size == 1:
            raise InputError("window_size=1: must be at least 2 for twins_svt")

    @property
    def fixed(self) -> tuple[str, ...]:
        return ("backbone",) if self.backbone in ("twins_svt", "vil") else ("backbone", "window_size")


# Published sizes drop paths as most of the papers do on ImageNet; nano forms are for small images, as swin_nano is.
_NANO = {"window_size": 4, "decoder_channels": 64, "weight_init": "xavier"}
_SIZES = ("embed_dims", "depths", "num_heads", "mlp_ratios")

with Path(__file__).with_name("sizes.csv").open() as _file:
    _ROWS = list(csv.DictReader(line for line in _file if not line.startswith("#")))
BACKBONES = {
    row["name"]: BackboneConfig(
        row["backbone"],
        **{key: tuple(int(number) for number in row[key].split()) for key in _SIZES},
        **(_NANO if row["name"].endswith("_nano") else {"drop_path": 0.1}),
    )
    for row in _ROWS
}
TIMM_WEIGHTS = {row["name"]: row["timm_weights"] for row in _ROWS if row["timm_weights"]}

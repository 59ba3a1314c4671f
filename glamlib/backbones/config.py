"""BackboneConfig: the sizes of a backbone and of the decoder on it. BACKBONES: the named ones, from ``sizes.csv``."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from glamlib.errors import InputError, one_of
from glamlib.models.config import Config, Counts, Rate, WeightInit


class Family(NamedTuple):
    """What each number of a family's sizes is for, and whether it has windows."""

    dims: tuple[str, ...]
    heads: tuple[str, ...]
    depths: tuple[str, ...]
    has_windows: bool = False


_STAGES = tuple(f"stage {i}" for i in range(4))
_BRANCHES = ("small patches", "large patches")
FAMILIES = {
    "swin": Family(_STAGES, _STAGES, _STAGES, has_windows=True),
    "pvt": Family(_STAGES, _STAGES, _STAGES),
    "pvt_v2": Family(_STAGES, _STAGES, _STAGES),
    "twins_pcpvt": Family(_STAGES, _STAGES, _STAGES),
    "twins_svt": Family(_STAGES, _STAGES, _STAGES, has_windows=True),
    "vil": Family(_STAGES, _STAGES, _STAGES, has_windows=True),
    "cvt": Family(_STAGES[:3], _STAGES[:3], _STAGES[:3]),
    "vit": Family(("all",), ("all",), ("all",)),
    "t2t_vit": Family(("tokens-to-token", "transformer"), ("transformer",), ("transformer",)),
    "tnt": Family(("inner", "outer"), ("inner", "outer"), ("both",)),
    "crossvit": Family(_BRANCHES, _BRANCHES, _BRANCHES),
}


@dataclass(frozen=True)
class BackboneConfig(Config):
    """One backbone, and UPerNet on it.

    Attributes:
        backbone: its family, a key of `FAMILIES`, which says what the numbers below are for.
        embed_dims, num_heads, depths: channels, attention heads and blocks.
        mlp_ratios: hidden channels of the MLPs over channels, as many as ``depths``.
        window_size: side in patches of Swin's windows, Twins-SVT's groups or ViL's chunks; others have none.
        drop_path: probability of dropping a residual branch in the last block; it rises to this from 0.
        decoder_channels: channels of UPerNet.
        weight_init: as in `glamlib.models.encoder.init_linear`.
    """

    backbone: str
    embed_dims: Counts
    depths: Counts
    num_heads: Counts
    mlp_ratios: Counts
    window_size: int = 7
    drop_path: Rate = 0.0
    decoder_channels: int = 512
    weight_init: WeightInit = "swin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone not in FAMILIES:
            raise one_of("backbone", self.backbone, FAMILIES)
        family, dims, swin = FAMILIES[self.backbone], self.embed_dims, self.backbone == "swin"
        parts = {"embed_dims": family.dims, "num_heads": family.heads}
        for name, numbers in (parts | {"depths": family.depths, "mlp_ratios": family.depths}).items():
            values, least = getattr(self, name), 4 if name == "embed_dims" else 1  # a simple pyramid has a quarter
            if len(values) != len(numbers) or min(values) < least:
                raise InputError(
                    f"{name}={list(values)}: must be {len(numbers)} integers of at least {least} for {self.backbone} "
                    f"({', '.join(numbers)})"
                )
        for dim, heads, part in zip(dims[-len(family.heads) :], self.num_heads, family.heads, strict=True):
            if dim % heads:
                raise InputError(
                    f"num_heads={list(self.num_heads)}: {heads} does not divide the {dim} channels ({part})"
                )
        least = 2 if self.backbone == "twins_svt" else 1
        for name, is_good, rule in (
            ("window_size", self.window_size >= least, f"at least {least} for {self.backbone}"),
            (
                "embed_dims",
                not swin or dims == tuple(dims[0] * 2**i for i in range(4)),
                "doubled at each stage of swin",
            ),
            ("mlp_ratios", not swin or len(set(self.mlp_ratios)) == 1, "the same in all stages of swin"),
            ("decoder_channels", self.decoder_channels >= 2, "at least 2"),
        ):
            if not is_good:
                raise InputError(f"{name}={getattr(self, name)}: must be {rule}")

    def overrides(self) -> list[str]:
        """Return the names of the fields that a caller may override; the model's name says the backbone."""
        fixed = ("backbone",) if FAMILIES[self.backbone].has_windows else ("backbone", "window_size")
        return [field.name for field in fields(self) if field.name not in fixed]


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

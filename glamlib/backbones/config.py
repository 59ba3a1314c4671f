"""BackboneConfig: the sizes of a backbone and of the decoder on it, checked when it is made."""

from dataclasses import dataclass, fields
from typing import NamedTuple

from glamlib.errors import InputError, one_of
from glamlib.models.config import WEIGHT_INITS, Config


class Family(NamedTuple):
    """How many numbers say the size of a family's network, in what order, and whether it has windows."""

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
        backbone: its family, a key of `FAMILIES`, which says what the numbers below are for, in order.
        embed_dims, num_heads, depths: channels, attention heads and blocks.
        mlp_ratios: hidden channels of the MLPs over channels, as many as ``depths``.
        window_size: side in patches of Swin's windows, Twins-SVT's groups or ViL's chunks; others have none.
        drop_path: probability of dropping a residual branch in the last block; earlier ones rise to it linearly.
        decoder_channels: channels of UPerNet.
        weight_init: as in `glamlib.models.encoder.init_linear`.
    """

    backbone: str
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    window_size: int = 7
    drop_path: float = 0.0
    decoder_channels: int = 512
    weight_init: str = "swin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone not in FAMILIES:
            raise one_of("backbone", self.backbone, FAMILIES)
        family = FAMILIES[self.backbone]
        for name, parts, least in (
            ("embed_dims", family.dims, 4),  # a simple pyramid has a quarter of them
            ("num_heads", family.heads, 1),
            ("depths", family.depths, 1),
            ("mlp_ratios", family.depths, 1),
        ):
            values = getattr(self, name)
            if len(values) != len(parts) or min(values) < least:
                raise InputError(
                    f"{name}={list(values)}: must be {len(parts)} integers of at least {least} for {self.backbone} "
                    f"({', '.join(parts)})"
                )
        for dim, heads, part in zip(self.embed_dims[-len(family.heads) :], self.num_heads, family.heads, strict=True):
            if dim % heads:
                raise InputError(
                    f"num_heads={list(self.num_heads)}: {heads} does not divide the {dim} channels ({part})"
                )
        if self.window_size < (2 if self.backbone == "twins_svt" else 1):
            raise InputError(f"window_size={self.window_size}: must be at least 1, and at least 2 for twins_svt")
        if self.backbone == "swin":
            if self.embed_dims != tuple(self.embed_dims[0] * 2**i for i in range(4)):
                raise InputError(f"embed_dims={list(self.embed_dims)}: swin's double from stage to stage")
            if len(set(self.mlp_ratios)) > 1:
                raise InputError(f"mlp_ratios={list(self.mlp_ratios)}: swin's are the same in all stages")
        if self.decoder_channels < 2:
            raise InputError(f"decoder_channels={self.decoder_channels}: must be at least 2")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path={self.drop_path}: must be at least 0 and below 1")
        if self.weight_init not in WEIGHT_INITS:
            raise one_of("weight_init", self.weight_init, WEIGHT_INITS)

    def overrides(self) -> list[str]:
        """Return the names of the fields that a caller may override; the backbone is said by the model's name."""
        fixed = ("backbone",) if FAMILIES[self.backbone].has_windows else ("backbone", "window_size")
        return [field.name for field in fields(self) if field.name not in fixed]

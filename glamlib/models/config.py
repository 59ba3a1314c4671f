"""ModelConfig: everything that makes up a model, checked for type and sense when it is made.

MERGED: VolumeConfig: everything that makes up a network for volumes.
"""

from dataclasses import dataclass, replace
from typing import Self, get_type_hints

from glamlib.errors import InputError, one_of
from glamlib.layers.mixers import MIXERS

DECODERS = ("upernet", "unet", "unet_nlu", "linear")
WEIGHT_INITS = ("swin", "xavier")


def checked(name: str, value: object, kind: type) -> object:
    """Return ``value`` as ``kind`` (int, float, str, bool or tuple[int, ...]), or raise InputError naming both.

    An int is taken for a float and a list for a tuple; nothing else is converted, and a bool is not an int.
    """
    if kind == tuple[int, ...]:
        if isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
            return tuple(value)
        raise InputError(f"{name}={value!r}: must be a non-empty list of integers")
    if kind == int | tuple[int, ...]:
        return checked(name, value, int if type(value) is not list and type(value) is not tuple else tuple[int, ...])
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{name}={value!r}: must be {kind.__name__}, not {type(value).__name__}")
    return value


class Config:
    """What the configurations of all kinds of networks share: checked types, and copies with overrides.

    A kind of network is a frozen dataclass of this base; its ``__post_init__`` checks its values after this one's.
    ``ndim`` is the dimensions of what it segments.
    """

    ndim = 2

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), kind))

    def with_overrides(self, name: str, allowed: list[str], overrides: dict[str, object]) -> Self:
        """Return a copy with ``overrides``; InputError that lists ``allowed`` for any other key."""
        for key in overrides:
            if key not in allowed:
                raise one_of(f"override for {name}:", key, allowed)
        return replace(self, **overrides)


class StagedConfig(Config):
    """What the configurations of networks made of `Stage`s share: sense of their sizes, heads, tokens and rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim < 1:
            raise InputError(f"embed_dim={self.embed_dim}: must be at least 1")
        tokens = self.num_global_tokens
        if min(tokens if isinstance(tokens, tuple) else (tokens,)) < 0:
            raise InputError(f"num_global_tokens={tokens}: must be at least 0")
        if isinstance(tokens, tuple) and len(tokens) != len(self.depths):
            raise InputError(
                f"num_global_tokens={list(tokens)}: must be one number, or one for each of {len(self.depths)} stages"
            )
        if len(self.depths) != len(self.num_heads) or min(self.depths + self.num_heads) < 1:
            raise InputError(
                f"depths={list(self.depths)}, num_heads={list(self.num_heads)}: must be as many, and each at least 1"
            )
        for i, heads in enumerate(self.num_heads):
            if self.embed_dim * 2**i % heads:
                raise InputError(
                    f"num_heads={list(self.num_heads)}: {heads} does not divide the "
                    f"{self.embed_dim * 2**i} channels of stage {i}"
                )
        if not 0 < self.mlp_ratio < float("inf"):
            raise InputError(f"mlp_ratio={self.mlp_ratio}: must be above 0 and finite")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path={self.drop_path}: must be at least 0 and below 1")
        if self.mixer not in MIXERS:
            raise one_of("mixer", self.mixer, MIXERS)
        if self.behaviour != "paper" and self.mixer not in ("gmsa", "none"):
            raise InputError(f"mixer={self.mixer!r}, behaviour={self.behaviour!r}: this behaviour takes gmsa or none")
        if self.weight_init not in WEIGHT_INITS:
            raise one_of("weight_init", self.weight_init, WEIGHT_INITS)

    def tokens_of(self, level: int) -> int:
        """Return the global tokens per window of the stages at a level (0 is the highest resolution)."""
        tokens = self.num_global_tokens
        return tokens if isinstance(tokens, int) else tokens[level]


@dataclass(frozen=True)
class ModelConfig(StagedConfig):
    """One model for images. Sizes are in patches (window_size), pixels (patch_size) or channels (embed_dim,
    decoder_channels).

    ``num_global_tokens`` is one number for all stages or one a stage, 0 for a stage without tokens. ``behaviour`` is
    "paper", "released" or single differences of the released code joined by "+" (`glamlib.released.DIFFERENCES`), which
    are defined for G-MSA and no exchange only. A ``mixer`` of patches takes ``num_global_tokens=0``, too.
    ``grad_checkpointing`` trades time in training for memory (see `Stage`) and changes no result.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int = 7
    patch_size: int = 4
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_global_tokens: int | tuple[int, ...] = 0
    mixer: str = "gmsa"
    decoder: str = "upernet"
    decoder_channels: int = 512
    weight_init: str = "swin"
    behaviour: str = "paper"
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_size", "patch_size", "decoder_channels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.decoder not in DECODERS:
            raise one_of("decoder", self.decoder, DECODERS)


@dataclass(frozen=True)
class VolumeConfig(StagedConfig):
    """One model for volumes. Sizes are in patches (window_size), voxels (patch_size) or channels (embed_dim).

    ``window_size`` is the side of the cubic windows: one number for all stages, or one a stage. ``patch_size`` is one
    number, or one for depth, height and width; each 1, 2 or 4. ``num_global_tokens`` is one number for all stages or
    one a stage. ``behaviour`` is "paper", "released" or single differences of the released 3D code joined by "+"
    (`glamlib.released.VOLUME_DIFFERENCES`), for the mixers gmsa and none only. Every stage of the decoder mirrors the
    encoder's of its resolution.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int | tuple[int, ...] = 4
    patch_size: int | tuple[int, ...] = 2
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_global_tokens: int | tuple[int, ...] = 0
    mixer: str = "gmsa"
    weight_init: str = "swin"
    behaviour: str = "paper"
    grad_checkpointing: bool = False

    ndim = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % 2:
            raise InputError(f"embed_dim={self.embed_dim}: must be even, the embedding starts with half of it")
        if len(self.windows) != len(self.depths) or min(self.windows) < 1:
            raise InputError(
                f"window_size={self.window_size}: must be one number, or one for each of {len(self.depths)} stages, "
                "each at least 1"
            )
        if len(self.patch) != 3 or not set(self.patch) <= {1, 2, 4}:
            raise InputError(f"patch_size={self.patch_size}: must be one number or three, each 1, 2 or 4")

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of a window of each stage."""
        return self.window_size if isinstance(self.window_size, tuple) else (self.window_size,) * len(self.depths)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Voxels of a patch along depth, height and width."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size,) * 3

"""What makes up a network, checked for type and sense when it is made: `ModelConfig` for images, `VolumeConfig`."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from glamlib.errors import Checked, InputError, Range, one_of
from glamlib.layers.mixers import MIXERS

DECODERS = ("upernet", "unet", "unet_nlu", "linear")
Count = Annotated[int, Range(1)]
Counts = tuple[Count, ...]
Tokens = Annotated[int, Range(0)]
Rate = Annotated[float, Range(0, 0.99)]
WeightInit = Literal["swin", "xavier"]


@dataclass(frozen=True)
class Config(Checked):
    """The base of the configurations of all kinds of networks; ``ndim`` is the dimensions of what they segment."""

    role: ClassVar[str] = "override"
    ndim: ClassVar[int] = 2

    def with_overrides(self, name: str, allowed: list[str], overrides: dict[str, object]) -> Self:
        """Return a copy with ``overrides``; InputError that lists ``allowed`` for any other key."""
        for key in overrides:
            if key not in allowed:
                raise one_of(f"override for {name}:", key, allowed)
        return replace(self, **overrides)


@dataclass(frozen=True)
class StagedConfig(Config):
    """What networks made of `Stage`s share.

    ``num_global_tokens`` is one number for all stages or one a stage, 0 for a stage without tokens. A ``mixer`` of
    patches takes 0, too. ``behaviour`` is "paper", "released" or single differences of the released code joined by "+"
    (`glamlib.released`), for the mixers gmsa and none only. ``grad_checkpointing`` trades time in training for memory
    (see `Stage`) and changes no result.
    """

    embed_dim: Count
    depths: Counts
    num_heads: Counts
    mlp_ratio: Annotated[float, Range(0.01)] = 4.0
    drop_path: Rate = 0.0
    num_global_tokens: Tokens | tuple[Tokens, ...] = 0
    mixer: Literal[tuple(MIXERS)] = "gmsa"
    weight_init: WeightInit = "swin"
    behaviour: str = "paper"
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        stages, tokens = len(self.depths), self.num_global_tokens
        if isinstance(tokens, tuple) and len(tokens) != stages:
            raise InputError(
                f"num_global_tokens={list(tokens)}: must be one number, or one for each of {stages} stages"
            )
        if len(self.num_heads) != stages:
            raise InputError(f"depths={list(self.depths)}, num_heads={list(self.num_heads)}: must be as many")
        for i, heads in enumerate(self.num_heads):
            dim = self.embed_dim * 2**i
            if dim % heads:
                raise InputError(
                    f"num_heads={list(self.num_heads)}: {heads} does not divide the {dim} channels of stage {i}"
                )
        if self.behaviour != "paper" and self.mixer not in ("gmsa", "none"):
            raise InputError(f"mixer={self.mixer!r}, behaviour={self.behaviour!r}: this behaviour takes gmsa or none")

    def tokens_of(self, level: int) -> int:
        """Return the global tokens per window of the stages at a level (0 is the highest resolution)."""
        tokens = self.num_global_tokens
        return tokens if isinstance(tokens, int) else tokens[level]


@dataclass(frozen=True)
class ModelConfig(StagedConfig):
    """One model for images. Sizes are in patches (window_size), pixels (patch_size) or channels."""

    window_size: Count = 7
    patch_size: Count = 4
    decoder: Literal[DECODERS] = "upernet"
    decoder_channels: Count = 512


@dataclass(frozen=True)
class VolumeConfig(StagedConfig):
    """One model for volumes. Sizes are in patches (window_size), voxels (patch_size) or channels.

    ``window_size`` is the side of the cubic windows, one number or one a stage; ``patch_size`` is one number, or one
    for depth, height and width, each 1, 2 or 4. Every stage of the decoder mirrors the encoder's of its resolution.
    """

    ndim: ClassVar[int] = 3

    window_size: Count | Counts = 4
    patch_size: Count | Counts = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % 2:
            raise InputError(f"embed_dim={self.embed_dim}: must be even, the embedding starts with half of it")
        if len(self.windows) != len(self.depths):
            raise InputError(
                f"window_size={self.window_size}: must be one number, or one for each of {len(self.depths)} stages"
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

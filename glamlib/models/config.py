"""The sizes and options of a network, checked: `ModelConfig` for images, `VolumeConfig` for volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from glamlib.errors import Checked, Count, InputError, Natural, Range
from glamlib.layers.mixers import MIXERS

DECODERS = ("upernet", "unet", "unet_nlu", "linear")
Counts = tuple[Count, ...]
DecoderChannels = Annotated[int, Range(2)]
Rate = Annotated[float, Range(0, 0.99)]
WeightInit = Literal["swin", "xavier"]


@dataclass(frozen=True)
class Config(Checked):
    """The base of all configurations; ``ndim`` is 2 for images, 3 for volumes."""

    role: ClassVar[str] = "override"
    ndim: ClassVar[int] = 2
    fixed: ClassVar[tuple[str, ...]] = ()  # no overrides: the model's name says them, or the model has no use for them

    def check_heads(self, dims: Sequence[int], parts: Sequence[str]) -> None:
        """Raise an InputError where heads do not divide the channels of their part of the network."""
        for heads, dim, part in zip(self.num_heads, dims, parts, strict=True):
            if dim % heads:
                raise InputError(
                    f"num_heads={list(self.num_heads)}: {heads} does not divide the {dim} channels of {part}"
                )


@dataclass(frozen=True, kw_only=True)
class StagedConfig(Config):
    """A network made of `Stage`s.

    Attributes:
        embed_dim: channels C of the first stage; stage i has ``C * 2**i``.
        depths, num_heads: blocks and attention heads of each stage.
        window_size: side of a window in patches. patch_size: side of a patch in pixels or voxels.
        mlp_ratio: hidden channels of the MLPs over C.
        drop_path: probability of dropping a residual branch in the last block; it rises to this from 0.
        num_global_tokens: tokens per window, one number for all stages or one a stage (0 for none).
        mixer: the exchange between windows (`glamlib.layers.mixers`). A mixer of patches needs no tokens.
        mask_tokens: also mask tokens in shifted windows (see `WindowAttention`), which the paper's code does not.
        weight_init: see `glamlib.models.encoder.init_linear`.
        behaviour: "paper", "released", or single differences of the released code joined by "+" (`glamlib.released`),
            which are defined for the mixers gmsa and none.
        grad_checkpointing: recompute each block's activations in its backward pass: less memory, a third more time.
    """

    embed_dim: Count
    depths: Counts
    num_heads: Counts
    window_size: Count | Counts
    patch_size: Count | Counts
    mlp_ratio: Annotated[float, Range(0.01)] = 4.0
    drop_path: Rate = 0.0
    num_global_tokens: Natural | tuple[Natural, ...] = 0
    mixer: Literal[*MIXERS] = "gmsa"
    mask_tokens: bool = False
    weight_init: WeightInit = "swin"
    behaviour: str = "paper"
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_heads", "num_global_tokens", "window_size"):
            if len(self.per_stage(name)) != len(self.depths):
                values = list(getattr(self, name))
                raise InputError(f"{name}={values}: must have one number for each of the {len(self.depths)} stages")
        self.check_heads(self.dims, [f"stage {i}" for i in range(len(self.dims))])
        if self.behaviour != "paper" and self.mixer not in ("gmsa", "none"):
            raise InputError(f"mixer={self.mixer!r}, behaviour={self.behaviour!r}: this behaviour takes gmsa or none")

    @property
    def fixed(self) -> tuple[str, ...]:
        return ("decoder",) if self.num_global_tokens else ("decoder", "num_global_tokens", "mixer", "mask_tokens")

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    def per_stage(self, name: str) -> tuple[int, ...]:
        """Return a setting of each stage, also if one number stands for all."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * len(self.depths)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(StagedConfig):
    """A model for images: Swin or GLAM-Swin and a decoder; ``decoder_channels`` are UPerNet's."""

    window_size: Count = 7
    patch_size: Count = 4
    decoder: Literal[*DECODERS] = "upernet"
    decoder_channels: DecoderChannels = 512


@dataclass(frozen=True, kw_only=True)
class VolumeConfig(StagedConfig):
    """A model for volumes: nnFormer or GLAM-nnFormer, with a decoder that mirrors the encoder.

    Windows are cubes; ``window_size`` may differ between stages, ``patch_size`` between depth, height and width.
    """

    ndim: ClassVar[int] = 3

    window_size: Count | Counts = 4
    patch_size: Literal[1, 2, 4] | tuple[Literal[1, 2, 4], Literal[1, 2, 4], Literal[1, 2, 4]] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % 2:
            raise InputError(f"embed_dim={self.embed_dim}: must be even, the embedding starts with half of it")

    @property
    def patch(self) -> tuple[int, int, int]:
        """Voxels of a patch along depth, height and width."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size,) * 3

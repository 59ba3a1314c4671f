"""add_global_tokens: GLAM as a module for window transformers that exist already."""

from collections.abc import Sequence

import torch
from timm.layers import trunc_normal_
from timm.models.swin_transformer import SwinTransformerStage
from timm.models.swin_transformer_v2 import SwinTransformerV2Stage
from timm.models.twins import LocallyGroupedAttn, Twins
from torch import Tensor, nn

from glamlib.errors import InputError, one_of
from glamlib.layers.mixers import MIXERS, acts_on_patches, create_mixer
from glamlib.models.encoder import init_linear

from .attention import SwinTokenAttention, SwinV2TokenAttention, TokenAttention, TwinsTokenAttention
from .blocks import (
    SwinTokenBlock,
    SwinTokenStage,
    SwinV2TokenBlock,
    SwinV2TokenStage,
    TokenBlock,
    TwinsTokenBlock,
    TwinsTokenEmbed,
)


def add_global_tokens(model: nn.Module, num_global_tokens: int = 10, mixer: str = "gmsa") -> nn.Module:
    """Put global tokens and their exchange into the window attention of a timm model, in place.

    Swin and Swin V2: every stage gets tokens, which live through its blocks as in GLAM. Twins-SVT: the tokens of a
    stage live through its blocks of locally grouped attention, every second one; a stage with a single one has nothing
    that could read what is exchanged (in twins_svt_small the first two stages).

    The model stays a timm model: class, attributes, forward_features, forward_intermediates and names of parameters are
    as before, so weights of the plain model load with ``strict=False`` and miss only what was added
    (``global_tokens``, ``gate``, ``mixer`` and ``norm_mixer``). It computes what it computed before until training
    opens the gates, which start at 0: see `glamlib.models.timm_tokens.attention.TokenAttention`.

    Args:
        model: timm's SwinTransformer, SwinTransformerV2 or Twins (SVT), or a module that holds some, such as what
            ``timm.create_model(..., features_only=True)`` returns.
        num_global_tokens: tokens per window.
        mixer: what exchanges between the windows: one of the mixers that act on tokens, or "none".

    Returns:
        The model that was given.

    Raises:
        InputError: a model without these attentions or that has tokens already; a number of tokens below 1; a mixer
            that is unknown or acts on patches. The model is as it was.
    """
    if type(num_global_tokens) is not int or num_global_tokens < 1:
        raise InputError(f"num_global_tokens={num_global_tokens!r}: must be an integer of at least 1")
    if mixer not in MIXERS or acts_on_patches(mixer):
        raise one_of("mixer of tokens", mixer, [name for name in MIXERS if not acts_on_patches(name)])
    parts = list(model.modules())
    if any(isinstance(part, TokenAttention) for part in parts):
        raise InputError(f"{type(model).__name__} has global tokens already")
    # Stages, not networks: timm's features_only may leave the stages of Swin without their network.
    stages = [part for part in parts if isinstance(part, SwinTransformerStage | SwinTransformerV2Stage)]
    twins = [part for part in parts if isinstance(part, Twins) and any(map(_is_local, part.modules()))]
    if not stages and not twins:
        allowed = ("SwinTransformer", "SwinTransformerV2", "Twins (SVT)")
        raise one_of("window transformer", type(model).__name__, allowed)
    for stage in stages:
        _turn_swin(stage, num_global_tokens, mixer)
    for network in twins:
        _turn_twins(network, num_global_tokens, mixer)
    return model


def _is_local(part: nn.Module) -> bool:
    """Return whether a module is the window attention of Twins-SVT; PCPVT has none."""
    return isinstance(part, LocallyGroupedAttn)


def _turn_swin(stage: SwinTransformerStage | SwinTransformerV2Stage, num_tokens: int, mixer: str) -> None:
    is_v2 = isinstance(stage, SwinTransformerV2Stage)
    attention, block = (SwinV2TokenAttention, SwinV2TokenBlock) if is_v2 else (SwinTokenAttention, SwinTokenBlock)
    # Only classes change, and parameters are added: modules stay in place, and so do the names of all parameters.
    stage.__class__ = SwinV2TokenStage if is_v2 else SwinTokenStage
    stage.global_tokens = _start(num_tokens, stage.blocks[0].norm1.weight)
    _turn_blocks(stage.blocks, block, attention, mixer)


def _turn_twins(network: Twins, num_tokens: int, mixer: str) -> None:
    for embed, stage in zip(network.patch_embeds, network.blocks, strict=True):
        blocks = [block for block in stage if _is_local(block.attn)]
        if blocks:
            embed.__class__ = TwinsTokenEmbed
            embed.ws = blocks[0].attn.ws
            embed.global_tokens = _start(num_tokens, blocks[0].norm1.weight)
            _turn_blocks(blocks, TwinsTokenBlock, TwinsTokenAttention, mixer)


def _turn_blocks(
    blocks: Sequence[nn.Module], block_class: type[TokenBlock], attention_class: type[TokenAttention], mixer: str
) -> None:
    for i, block in enumerate(blocks):
        block.__class__, block.attn.__class__ = block_class, attention_class
        like = block.norm1.weight
        block.attn.gate = nn.Parameter(like.new_zeros(block.attn.num_heads))
        block.is_last = i == len(blocks) - 1
        block.mixer = None if block.is_last else create_mixer(mixer, len(like), block.attn.num_heads, ())
        block.norm_mixer = None
        if block.mixer is not None:
            init_linear(block.mixer, "swin")
            block.mixer.to(like).train(block.training)
            block.norm_mixer = nn.LayerNorm(len(like)).to(like).train(block.training)


def _start(num_tokens: int, like: Tensor) -> nn.Parameter:
    """Return the tokens ``(T, C)`` that every window of a stage starts from."""
    tokens = nn.Parameter(torch.zeros(num_tokens, len(like)).to(like))
    trunc_normal_(tokens, std=0.02)
    return tokens

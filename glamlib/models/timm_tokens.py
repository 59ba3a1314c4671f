"""add_global_tokens: GLAM in timm's window transformers.

Their attentions get gates and their stages tokens. Modules stay and change their class, so names of parameters stay.
"""

from math import log

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import trunc_normal_
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage, WindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2Block, SwinTransformerV2Stage
from timm.models.swin_transformer_v2 import WindowAttention as WindowAttentionV2
from timm.models.twins import Block, LocallyGroupedAttn, PatchEmbed, Twins
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glamlib.errors import Count, InputError, check, one_of
from glamlib.layers.mixers import MIXERS, acts_on_patches, create_mixer
from glamlib.layers.windows import WindowLayout, from_windows, to_windows
from glamlib.models.encoder import init_linear


class TokenAttention:
    """What timm's window attention becomes: W-MSA of GLAM on its projections and its bias.

    The weights of patches are ``(1 - tanh(gate)) softmax(patches) + tanh(gate) softmax(tokens and patches)``, with a
    ``gate`` for each head, as in Alayrac et al., "Flamingo" (NeurIPS 2022, section 2.2). It starts at 0, where a patch
    attends as before; training opens it, and at tanh(gate) = 1 this is GLAM's. Tokens always read everything.
    """

    def project(self, x: Tensor) -> Tensor:
        """Return queries, keys and values in a row, ``(..., 3 C)``."""
        return self.qkv(x)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return (q * self.scale) @ k.transpose(-2, -1)

    def position_bias(self) -> Tensor | None:
        """Return what is added to the logits between patches, ``(heads, P, P)``, or None."""
        return None

    def attend_jointly(self, tokens: Tensor, patches: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the updates of the tokens ``(B, nW, T, C)`` and of the patches ``(B, nW, P, C)``.

        ``mask`` ``(nW, P, P)`` is added to the logits between patches.
        """
        count = tokens.shape[2]
        qkv = self.project(torch.cat([tokens, patches], dim=2))  # (B, nW, T + P, 3 C)
        q, k, v = rearrange(qkv, "b w n (three h d) -> three b w h n d", three=3, h=self.num_heads)
        logits = self.logits(q, k)
        for added in (self.position_bias(), None if mask is None else mask[:, None]):
            if added is not None:
                logits = logits + F.pad(added, (count, 0, count, 0))
        joint = logits.softmax(dim=-1)
        plain = F.pad(logits[..., count:, count:].softmax(dim=-1), (count, 0))
        gated = plain + self.gate.tanh()[:, None, None] * (joint[..., count:, :] - plain)
        weights = self.attn_drop(torch.cat([joint[..., :count, :], gated], dim=-2))
        y = self.proj_drop(self.proj(rearrange(weights @ v, "b w h n d -> b w n (h d)")))
        return y[:, :, :count], y[:, :, count:]


class TwinsTokenAttention(TokenAttention, LocallyGroupedAttn):
    """Twins-SVT's locally grouped attention: no position bias."""


class SwinTokenAttention(TokenAttention, WindowAttention):
    """Swin's: a table of position biases."""

    def position_bias(self) -> Tensor:
        return self._get_rel_pos_bias()[0]


class SwinV2TokenAttention(TokenAttention, WindowAttentionV2):
    """Swin V2's: cosines, and position biases from a small network (Liu et al., CVPR 2022, eq. 2 and 3)."""

    def project(self, x: Tensor) -> Tensor:
        bias = None if self.q_bias is None else torch.cat([self.q_bias, self.k_bias, self.v_bias])
        return F.linear(x, self.qkv.weight, bias)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        scale = self.logit_scale.clamp(max=log(100)).exp()
        return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * scale

    def position_bias(self) -> Tensor:
        rows = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)  # (offsets, heads)
        return 16 * rows[self.relative_position_index].permute(2, 0, 1).sigmoid()


class TokenBlock:
    """What a timm block becomes: W-MSA over tokens and patches, exchange between the tokens, MLP for both.

    The order is that of `GlamBlock`. Norms come where the block has its own: before the branches, or after (Swin V2).
    The last block of a stage has no mixer and returns no tokens.
    """

    norm_comes_last = False

    def before(self, norm: nn.Module, z: Tensor) -> Tensor:
        return z if self.norm_comes_last else norm(z)

    def after(self, norm: nn.Module, z: Tensor) -> Tensor:
        return norm(z) if self.norm_comes_last else z

    def add_mlp(self, z: Tensor) -> Tensor:
        return z + self.drop_path2(self.after(self.norm2, self.mlp(self.before(self.norm2, z))))

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the new map ``(B, H, W, C)`` and the new tokens ``(B, nW, T, C)``, None after the last block.

        The tokens of a stage's first block are those that all windows start from, ``(T, C)``.
        """
        # the layout of the map once it is shifted: timm shifts first, then pads
        layout = WindowLayout(tuple(x.shape[1:3]), tuple(self.window_size), (0, 0))
        tokens = tokens.expand(len(x), layout.num_windows, -1, -1)
        down, right = self.shift_size
        patches = to_windows(self.before(self.norm1, x).roll((-down, -right), dims=(1, 2)), layout)
        mask = self.attn_mask
        if self.dynamic_mask:
            mask = self.get_attn_mask(x.new_empty(1, *layout.padded, 1))  # it reads the size only
        token_update, update = self.attn.attend_jointly(self.before(self.norm1, tokens), patches, mask)
        update = from_windows(update, layout).roll((down, right), dims=(1, 2))
        x = self.add_mlp(x + self.drop_path1(self.after(self.norm1, update)))
        if self.is_last:
            return x, None
        tokens = tokens + self.drop_path1(self.after(self.norm1, token_update))
        if self.mixer is not None:
            exchanged, _ = self.mixer(self.before(self.norm_mixer, tokens), layout.grid)
            tokens = tokens + self.drop_path1(self.after(self.norm_mixer, exchanged))
        return x, self.add_mlp(tokens)


class SwinTokenBlock(TokenBlock, SwinTransformerBlock):
    """Swin's block."""


class SwinV2TokenBlock(TokenBlock, SwinTransformerV2Block):
    """Swin V2's block."""

    norm_comes_last = True


class TwinsTokenBlock(TokenBlock, Block):
    """A block of Twins-SVT with locally grouped attention; tokens skip the blocks of subsampled attention between."""

    shift_size, dynamic_mask, attn_mask = (0, 0), False, None

    @property
    def window_size(self) -> tuple[int, int]:
        return (self.attn.ws,) * 2

    def forward(self, x: Tensor, size: "StageSize") -> Tensor:
        """Return the new patches ``(B, H * W, C)``; tokens come and go with ``size``."""
        x, size.tokens = super().forward(x.unflatten(1, tuple(size)), size.tokens)
        return x.flatten(1, 2)


class TokenStage(SwinTransformerStage):
    """What a stage of Swin or Swin V2 (of the same methods) becomes: tokens start here and live through its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        x, tokens = self.downsample(x), self.global_tokens
        for block in self.blocks:
            if self.grad_checkpointing:
                x, tokens = checkpoint(block, x, tokens, use_reentrant=False)
            else:
                x, tokens = block(x, tokens)
        return x


class StageSize(tuple):
    """The size (H, W) of a stage's map, which timm's Twins hands to every block of it; with it go the tokens."""


class TwinsTokenEmbed(PatchEmbed):
    """The patch embedding that begins a stage of Twins-SVT: the stage's tokens start here."""

    def forward(self, x: Tensor) -> tuple[Tensor, StageSize]:
        x, size = super().forward(x)
        size = StageSize(size)
        size.tokens = self.global_tokens
        return x, size


# What a module of timm becomes, by its class
_BECOMES = {SwinTransformerStage: TokenStage, SwinTransformerV2Stage: TokenStage, PatchEmbed: TwinsTokenEmbed}
_BECOMES |= {SwinTransformerBlock: SwinTokenBlock, SwinTransformerV2Block: SwinV2TokenBlock, Block: TwinsTokenBlock}
_BECOMES |= {WindowAttention: SwinTokenAttention, WindowAttentionV2: SwinV2TokenAttention}
_BECOMES |= {LocallyGroupedAttn: TwinsTokenAttention}


def add_global_tokens(model: nn.Module, num_global_tokens: int = 10, mixer: str = "gmsa") -> nn.Module:
    """Put global tokens and their exchange into the window attention of a timm model, in place, and return it.

    In Swin and Swin V2 the tokens of a stage live through its blocks as in GLAM, in Twins-SVT through its blocks of
    locally grouped attention, every second one. (A stage with a single one, as the first two of twins_svt_small, has
    nothing that could read what is exchanged.)

    The model stays a timm model: class, methods and names of parameters are as before, so weights of the plain model
    load with ``strict=False`` and miss only ``global_tokens``, ``gate``, ``mixer`` and ``norm_mixer``. It computes what
    it did before until training opens the gates: see `glamlib.models.timm_tokens.TokenAttention`.

    Args:
        model: timm's SwinTransformer, SwinTransformerV2 or Twins (SVT), or a module that holds some, such as what
            ``timm.create_model(..., features_only=True)`` returns.
        num_global_tokens: tokens per window.
        mixer: what exchanges between the windows: one of the mixers that act on tokens, or "none".

    Raises:
        InputError: a model without these attentions or that has tokens already; a number of tokens below 1; a mixer
            that is unknown or acts on patches. The model is as it was.
    """
    check("num_global_tokens", num_global_tokens, Count)
    if mixer not in MIXERS or acts_on_patches(mixer):
        raise one_of("mixer of tokens", mixer, [name for name in MIXERS if not acts_on_patches(name)])
    if any(isinstance(part, TokenAttention) for part in model.modules()):
        raise InputError(f"{type(model).__name__} has global tokens already")
    stages = []  # where tokens start, and the blocks with window attention
    for part in model.modules():
        # not the network: timm's features_only may leave the stages of Swin without it
        if isinstance(part, SwinTransformerStage | SwinTransformerV2Stage):
            stages.append((part, list(part.blocks)))
        elif isinstance(part, Twins):  # SVT; PCPVT has no window attention
            local = [[block for block in stage if type(block.attn) is LocallyGroupedAttn] for stage in part.blocks]
            stages += [(embed, blocks) for embed, blocks in zip(part.patch_embeds, local, strict=True) if blocks]
    if not stages:
        allowed = ("SwinTransformer", "SwinTransformerV2", "Twins (SVT)")
        raise one_of("window transformer", type(model).__name__, allowed)
    for start, blocks in stages:
        like = blocks[0].norm1.weight
        start.global_tokens = nn.Parameter(trunc_normal_(like.new_zeros(num_global_tokens, len(like)), std=0.02))
        for block in blocks:
            heads, is_last = block.attn.num_heads, block is blocks[-1]
            block.is_last = is_last
            block.attn.gate = nn.Parameter(like.new_zeros(heads))
            block.mixer = None if is_last else create_mixer(mixer, len(like), heads, ())
            block.norm_mixer = None if block.mixer is None else nn.LayerNorm(len(like))
            for added in filter(None, (block.mixer, block.norm_mixer)):
                init_linear(added, "swin")
                added.to(like).train(block.training)
        for part in (start, *blocks, *(block.attn for block in blocks)):
            part.__class__ = _BECOMES[type(part)]
    return model

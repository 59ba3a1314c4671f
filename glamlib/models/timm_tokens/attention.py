"""timm's window attentions over tokens and patches in one sequence, gated so that they start as they were."""

from math import log

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention
from timm.models.swin_transformer_v2 import WindowAttention as WindowAttentionV2
from timm.models.twins import LocallyGroupedAttn
from torch import Tensor, nn


class TokenAttention:
    """What timm's window attention becomes: W-MSA of GLAM on its projections and its bias.

    ``gate`` ``(heads,)`` says how far patches look at tokens: their weights are
    ``(1 - tanh(gate)) softmax(patches) + tanh(gate) softmax(tokens and patches)``. At 0 a patch attends as before, to
    the patches of its window alone, and at tanh(gate) = 1 as in GLAM; at 0 the gate has a gradient, so training opens
    it (the gate of Alayrac et al., "Flamingo", NeurIPS 2022, section 2.2). Tokens always read everything.
    """

    gate: nn.Parameter

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
        x = torch.cat([tokens, patches], dim=2)  # (B, nW, T + P, C)
        qkv = self.project(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, nW, heads, T + P, d)
        logits = self.logits(q, k)
        bias = self.position_bias()
        for added in (bias, None if mask is None else mask[:, None]):
            if added is not None:
                logits = logits + F.pad(added, (count, 0, count, 0))
        joint = logits.softmax(dim=-1)
        plain = F.pad(logits[..., count:, count:].softmax(dim=-1), (count, 0))
        gated = plain + self.gate.tanh()[:, None, None] * (joint[..., count:, :] - plain)
        weights = self.attn_drop(torch.cat([joint[..., :count, :], gated], dim=-2))
        y = (weights @ v).transpose(2, 3).flatten(3)  # (B, nW, T + P, heads * d)
        y = self.proj_drop(self.proj(y))
        return y[:, :, :count], y[:, :, count:]


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
        index = self.relative_position_index
        return 16 * rows[index.flatten()].view(*index.shape, -1).permute(2, 0, 1).sigmoid()


class TwinsTokenAttention(TokenAttention, LocallyGroupedAttn):
    """Twins-SVT's locally grouped attention: no position bias."""

"""One resolution of an encoder or decoder: blocks on windows, every second time shifted, and their global tokens."""

from collections.abc import Callable

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glamlib.layers.block import GlamBlock
from glamlib.layers.mixers import acts_on_patches


class Stage(nn.Module):
    """Blocks on one resolution, after the merging that leads to it; its global tokens start here.

    Args:
        dim, num_heads, window_size, mixer, mlp_ratio, mask_tokens: as in `GlamBlock`.
        drop_paths: drop path rate of each block; as many blocks are built.
        num_global_tokens: tokens per window; every window starts from the same learned vectors. Without tokens no mixer
            of tokens is built.
        level: 0 for the highest resolution.
        grad_checkpointing: recompute each block's activations in its backward pass: less memory, a third more time.
        downsample: the merging; None in a decoder and in the first stage.
        make_block: `GlamBlock` or a subclass.
    """

    def __init__(
        self,
        dim: int,
        drop_paths: list[float],
        num_heads: int,
        window_size: tuple[int, ...],
        num_global_tokens: int,
        mixer: str,
        mlp_ratio: float,
        level: int,
        grad_checkpointing: bool = False,
        mask_tokens: bool = False,
        downsample: nn.Module | None = None,
        make_block: Callable[..., GlamBlock] = GlamBlock,
    ) -> None:
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.window_size = window_size
        self.level = level
        self.grad_checkpointing = grad_checkpointing
        self.global_tokens = nn.Parameter(torch.zeros(num_global_tokens, dim)) if num_global_tokens else None
        if num_global_tokens:
            trunc_normal_(self.global_tokens, std=0.02)
        self.blocks = nn.ModuleList(
            make_block(
                dim=dim,
                num_heads=num_heads,
                window_size=window_size,
                shifted=bool(i % 2),
                mixer=mixer if num_global_tokens or acts_on_patches(mixer) else "none",
                is_last=i == len(drop_paths) - 1,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
                mask_tokens=mask_tokens,
            )
            for i, drop_path in enumerate(drop_paths)
        )

    def start_tokens(self, x: Tensor) -> Tensor | None:
        """Return the first tokens ``(B, nW, T, C)`` of the windows of the map ``x``, None without tokens."""
        if self.global_tokens is None:
            return None
        return self.global_tokens.expand(x.shape[0], self.blocks[0].layout_of(x).num_windows, -1, -1)

    def forward(self, x: Tensor, traces: list[dict] | None = None) -> Tensor:
        """Apply the blocks, not the merging, to a map ``(B, *size, C)``; ``traces`` gets one dict a block."""
        tokens = self.start_tokens(x)
        for block in self.blocks:
            if self.grad_checkpointing and traces is None and torch.is_grad_enabled():
                x, tokens = checkpoint(block, x, tokens, use_reentrant=False)
            elif traces is None:
                x, tokens = block(x, tokens)
            else:
                traces.append({})
                x, tokens = block(x, tokens, traces[-1])
        return x

"""timm's blocks with global tokens, and the stages through which the tokens live."""

from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage
from timm.models.swin_transformer_v2 import SwinTransformerV2Block, SwinTransformerV2Stage
from timm.models.twins import Block, PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glamlib.layers.windows import WindowLayout, from_windows, to_windows


class TokenBlock:
    """What a timm block becomes: W-MSA over tokens and patches, exchange between the tokens, MLP for both.

    The order is that of `GlamBlock`. Norms come where the block has its own: before the branches, or after (Swin V2).
    The last block of a stage has no mixer and returns no tokens.
    """

    norm_comes_last = False
    mixer: nn.Module | None
    norm_mixer: nn.Module | None
    is_last: bool

    def layout_of(self, x: Tensor) -> WindowLayout:
        """Return how the windows lie on the map ``(B, H, W, C)`` once it is shifted: timm shifts first, then pads."""
        return WindowLayout(tuple(x.shape[1:3]), tuple(self.window_size), (0, 0))

    def shift(self) -> tuple[int, int]:
        return tuple(self.shift_size)

    def mask(self, x: Tensor, layout: WindowLayout) -> Tensor | None:
        """Return what is added to the logits between the patches of shifted windows, ``(nW, P, P)``, or None."""
        if not self.dynamic_mask:
            return self.attn_mask
        return self.get_attn_mask(x.new_empty(1, *layout.padded, 1))  # it reads the size only

    def before(self, norm: nn.Module, z: Tensor) -> Tensor:
        return z if self.norm_comes_last else norm(z)

    def after(self, norm: nn.Module, z: Tensor) -> Tensor:
        return norm(z) if self.norm_comes_last else z

    def mlp_branch(self, z: Tensor) -> Tensor:
        return self.drop_path2(self.after(self.norm2, self.mlp(self.before(self.norm2, z))))

    def attend(self, x: Tensor, tokens: Tensor, layout: WindowLayout) -> tuple[Tensor, Tensor]:
        """Return the updates of map and tokens from W-MSA, without norms."""
        down, right = self.shift()
        if down or right:
            x = x.roll((-down, -right), dims=(1, 2))
        tokens, patches = self.attn.attend_jointly(tokens, to_windows(x, layout), self.mask(x, layout))
        x = from_windows(patches, layout)
        return x.roll((down, right), dims=(1, 2)) if down or right else x, tokens

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the new map ``(B, H, W, C)`` and the new tokens ``(B, nW, T, C)``, None after the last block."""
        layout = self.layout_of(x)
        update, token_update = self.attend(self.before(self.norm1, x), self.before(self.norm1, tokens), layout)
        x = x + self.drop_path1(self.after(self.norm1, update))
        x = x + self.mlp_branch(x)
        if self.is_last:
            return x, None
        tokens = tokens + self.drop_path1(self.after(self.norm1, token_update))
        if self.mixer is not None:
            exchanged, _ = self.mixer(self.before(self.norm_mixer, tokens), layout.grid)
            tokens = tokens + self.drop_path1(self.after(self.norm_mixer, exchanged))
        return x, tokens + self.mlp_branch(tokens)


class SwinTokenBlock(TokenBlock, SwinTransformerBlock):
    """Swin's block."""


class SwinV2TokenBlock(TokenBlock, SwinTransformerV2Block):
    """Swin V2's block."""

    norm_comes_last = True


class TokenStage:
    """What a stage of Swin becomes: its tokens start here and live through its blocks."""

    global_tokens: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        tokens = self.global_tokens.expand(x.shape[0], self.blocks[0].layout_of(x).num_windows, -1, -1)
        for block in self.blocks:
            if self.grad_checkpointing:
                x, tokens = checkpoint(block, x, tokens, use_reentrant=False)
            else:
                x, tokens = block(x, tokens)
        return x


class SwinTokenStage(TokenStage, SwinTransformerStage):
    """Swin's stage."""


class SwinV2TokenStage(TokenStage, SwinTransformerV2Stage):
    """Swin V2's stage."""


class StageSize(tuple):
    """The size (H, W) of a stage's map, which timm's Twins hands to every block of it; with it go the tokens."""

    tokens: Tensor | None


class TwinsTokenEmbed(PatchEmbed):
    """The patch embedding that begins a stage of Twins-SVT: the stage's tokens start here."""

    global_tokens: nn.Parameter
    ws: int

    def forward(self, x: Tensor) -> tuple[Tensor, StageSize]:
        x, size = super().forward(x)
        size = StageSize(size)
        layout = WindowLayout(size, (self.ws,) * 2, (0, 0))
        size.tokens = self.global_tokens.expand(x.shape[0], layout.num_windows, -1, -1)
        return x, size


class TwinsTokenBlock(TokenBlock, Block):
    """A block of Twins-SVT with locally grouped attention. The blocks of subsampled attention between stay as they are:
    patches pass through them, tokens pass them by.
    """

    def layout_of(self, x: Tensor) -> WindowLayout:
        return WindowLayout(tuple(x.shape[1:3]), (self.attn.ws,) * 2, (0, 0))

    def shift(self) -> tuple[int, int]:
        return 0, 0

    def mask(self, x: Tensor, layout: WindowLayout) -> None:
        return None

    def forward(self, x: Tensor, size: StageSize) -> Tensor:
        """Return the new patches ``(B, H * W, C)``; tokens come and go with ``size``."""
        x, size.tokens = super().forward(x.unflatten(1, tuple(size)), size.tokens)
        return x.flatten(1, 2)

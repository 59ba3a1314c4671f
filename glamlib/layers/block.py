"""One GLAM block on an N-dimensional map; with no global tokens it is a Swin block.

The paper's reading used here, for the tokens g_k and patches w_k of every window k in one sequence z_k = [g_k ; w_k]:

    z_k <- z_k + W-MSA(LN(z_k))     inside window k
    g   <- g   + G-MSA(LN(g))       between the tokens of all windows
    z_k <- z_k + MLP(LN(z_k))

A mixer in place of G-MSA acts on the tokens, or, at the same point, on the patches of all windows.
Source: Themyr et al. (WACV 2023), section 3.1; the order of norms is Swin's.
"""

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from glamlib.errors import InputError
from glamlib.layers.attention import Attended, WindowAttention
from glamlib.layers.mixers import acts_on_patches, create_mixer
from glamlib.layers.windows import WindowLayout, from_windows, to_windows


class GlamBlock(nn.Module):
    """W-MSA over tokens and patches, exchange between windows, MLP; each residual and pre-norm.

    Windows have ``window_size`` patches along each dimension; in every second block they are ``shifted`` by half of it.
    Nothing reads the tokens of a stage's last block (``is_last``), so it builds no mixer of tokens and returns none.
    ``mask_tokens``: see `WindowAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: tuple[int, ...],
        shifted: bool,
        mixer: str = "none",
        is_last: bool = False,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        mask_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shifted = shifted
        self.is_last = is_last
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size, mask_tokens)
        self.mixes_patches = acts_on_patches(mixer)
        builds = self.mixes_patches or not is_last
        self.mixer = create_mixer(mixer, dim, num_heads, window_size) if builds else None
        self.norm_mixer = nn.LayerNorm(dim) if self.mixer is not None else None
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def layout_of(self, x: Tensor) -> WindowLayout:
        """Return how the windows lie on the map ``(B, *size, C)``."""
        return WindowLayout.fit(tuple(x.shape[1:-1]), self.window_size, self.shifted)

    def enter(self, tokens: Tensor) -> Tensor:
        """Return the tokens as they join the patches in W-MSA."""
        return self.norm1(tokens)

    def pass_on(self, tokens: Tensor, update: Tensor, grid: tuple[int, ...], return_attention: bool) -> Attended:
        """Return the block's new tokens, from W-MSA's ``update`` of them, and the weights of the mixer if asked for."""
        weights = None
        tokens = tokens + self.drop_path(update)
        if self.mixer is not None and not self.mixes_patches:
            exchanged, weights = self.mixer(self.norm_mixer(tokens), grid, return_attention)
            tokens = tokens + self.drop_path(exchanged)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens))), weights

    def forward(
        self, x: Tensor, tokens: Tensor | None = None, trace: dict | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the new map ``(B, *size, C)`` and tokens ``(B, nW, T, C)``, None after the last block of a stage.

        With ``trace``, attention is explicit and stored there: ``layout``, ``window`` ``(B, nW, heads, T + P, T + P)``
        and ``global`` ``(B, heads, nW * T, nW * T)`` (of patch mixers: see there) or None. InputError without tokens.
        """
        layout = self.layout_of(x)
        if tokens is None and self.mixer is not None and not self.mixes_patches:
            raise InputError("tokens=None: a block with a mixer of tokens needs some; mixer='none' makes Swin's block")
        num_tokens = 0 if tokens is None else tokens.shape[2]
        # The norm comes before the padding, so padded patches are exact zeros, as in Swin.
        z = to_windows(self.norm1(x), layout)  # (B, nW, P, C)
        if num_tokens:
            z = torch.cat([self.enter(tokens), z], dim=2)  # (B, nW, T + P, C)
        update, window_weights = self.attn(z, layout, num_tokens, trace is not None)
        token_update, patch_update = update.split([num_tokens, layout.window_area], dim=2)
        x = x + self.drop_path(from_windows(patch_update, layout))
        global_weights = None
        if self.mixes_patches:
            patches = self.norm_mixer(x).flatten(1, -2)[:, :, None]  # (B, prod(size), 1, C)
            exchanged, global_weights = self.mixer(patches, layout.size, trace is not None)
            x = x + self.drop_path(exchanged.view(x.shape))
        x = x + self.drop_path(self.mlp(self.norm2(x)))

        if self.is_last:
            tokens = None
        elif tokens is not None:
            tokens, weights = self.pass_on(tokens, token_update, layout.grid, trace is not None)
            global_weights = global_weights if self.mixes_patches else weights
        if trace is not None:
            trace.update({"layout": layout, "window": window_weights, "global": global_weights})
        return x, tokens

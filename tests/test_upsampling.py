"""Patch expanding and non-local upsampling: both against explicit loops, and what a query of the latter sees."""

from itertools import product

import pytest
import torch
from conftest import loud
from torch import Tensor

from glamlib.layers.windows import WindowLayout, to_windows
from glamlib.models.unet import CrossWindowAttention, NonLocalUpsampling, PatchExpand

DIM, HEADS = 16, 2
# (window, size of the skip): whole windows, odd, one side smaller than a window, both, one patch
MAPS = [
    ((4, 4), (16, 24)),
    ((4, 4), (13, 9)),
    ((3, 3), (13, 17)),
    ((4, 4), (5, 20)),
    ((7, 7), (5, 9)),
    ((4, 4), (1, 1)),
]


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """The size of the map that patch merging makes of one of ``size``."""
    return -(-size[0] // 2), -(-size[1] // 2)


def maps(size: tuple[int, int], batch: int = 2) -> tuple[Tensor, Tensor]:
    """A coarse map and the skip connection of twice its size and half its channels."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(batch, *halved(size), DIM, generator=generator)
    return coarse, torch.randn(batch, *size, DIM // 2, generator=generator)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("cut", [(0, 0), (1, 0), (0, 1), (1, 1)])
@torch.no_grad()
def test_patch_expand_by_loops(scale: int, cut: tuple[int, int]) -> None:
    """Pixel (i, j) of a patch has the channels from (i * scale + j) * C on: rows slowest (METHOD, section 2)."""
    height, width, channels = 3, 4, 6
    expand = loud(PatchExpand(8, channels, scale))
    x = torch.randn(2, height, width, 8)
    size = (scale * height - cut[0], scale * width - cut[1])
    y = expand(x, size if any(cut) else None)
    assert y.shape == (2, *size, channels)
    for b, row, column in product(range(2), range(size[0]), range(size[1])):
        values = expand.expand.weight @ x[b, row // scale, column // scale]
        start = (row % scale * scale + column % scale) * channels
        values = values[start : start + channels]
        values = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(y[b, row, column], values * expand.norm.weight + expand.norm.bias)


@pytest.mark.parametrize(
    ("window", "clipped"), [((4, 4), (4, 4)), ((3, 3), (3, 3)), ((4, 4), (2, 4)), ((4, 4), (1, 3))]
)
@torch.no_grad()
def test_cross_attention_by_loops(window: tuple[int, int], clipped: tuple[int, int]) -> None:
    """Every query of every window and head: logits, softmax and sum written out."""
    attention = loud(CrossWindowAttention(DIM, HEADS, window)).double()
    layout = WindowLayout(clipped, clipped, (0, 0))
    batch, windows, length = 2, 3, clipped[0] * clipped[1]
    generator = torch.Generator().manual_seed(3)
    fine = torch.randn(batch, windows, 4 * length, DIM // 2, generator=generator, dtype=torch.float64)
    coarse = torch.randn(batch, windows, length, DIM, generator=generator, dtype=torch.float64)
    fused, nothing = attention(fine, coarse, layout)
    explicit, weights = attention(fine, coarse, layout, return_attention=True)
    assert nothing is None
    assert fused.shape == fine.shape
    assert weights.shape == (batch, windows, HEADS, 4 * length, length)
    torch.testing.assert_close(explicit, fused)

    d = DIM // HEADS
    table = attention.relative_position_bias_table
    cells = list(product(range(clipped[0]), range(clipped[1])))
    queries = list(product(range(2 * clipped[0]), range(2 * clipped[1])))
    for b, w, (n, (qy, qx)) in product(range(batch), range(windows), enumerate(queries)):
        q = attention.proj_q(fine[b, w, n])
        k, v = attention.proj_kv(coarse[b, w]).split(DIM, dim=-1)  # k, then v
        read = []
        for h in range(HEADS):
            own = slice(h * d, (h + 1) * d)
            offsets = [(qy // 2 - ky + window[0] - 1, qx // 2 - kx + window[1] - 1) for ky, kx in cells]
            bias = torch.stack([table[dy * (2 * window[1] - 1) + dx, h] for dy, dx in offsets])
            e = (k[:, own] @ q[own] / d**0.5 + bias).exp()
            torch.testing.assert_close(weights[b, w, h, n], e / e.sum())
            read.append((e / e.sum()) @ v[:, own])
        torch.testing.assert_close(explicit[b, w, n], attention.proj(torch.cat(read)))


@pytest.mark.parametrize(("window", "size"), MAPS)
@torch.no_grad()
def test_upsampling_by_hand(window: tuple[int, int], size: tuple[int, int]) -> None:
    """Norms before the padding, the shortcut from the map without a norm, and two residuals."""
    upsampling = loud(NonLocalUpsampling(DIM, HEADS, window))
    coarse, skip = maps(size)
    layout = WindowLayout.fit(halved(size), window, shifted=False)
    double = WindowLayout(size, tuple(2 * w for w in layout.window), (0, 0))
    asking, answering = to_windows(upsampling.norm_skip(skip), double), to_windows(upsampling.norm1(coarse), layout)
    read, _ = upsampling.attn(asking, answering, layout)
    expected = upsampling.expand(coarse, size)
    rows, columns = double.window
    for n, (row, column) in enumerate(product(*(range(g) for g in double.grid))):
        place = slice(row * rows, (row + 1) * rows), slice(column * columns, (column + 1) * columns)
        height, width = expected[:, *place].shape[1:3]  # less than a window at the border
        expected[:, *place] += read[:, n].view(2, rows, columns, -1)[:, :height, :width]
    expected = expected + upsampling.mlp(upsampling.norm2(expected))
    trace: dict = {}
    for y in (upsampling(coarse, skip), upsampling(coarse, skip, trace)):  # fused and explicit
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert trace["layout"] == layout
    cells = layout.window_area
    assert trace["cross"].shape == (2, layout.num_windows, HEADS, 4 * cells, cells)

"""The attentions against torch's own, explicit loops and the released code's tensors."""

from itertools import product
from math import cos, prod, sin

import pytest
import torch
from conftest import image, loud, reference
from torch import Tensor, nn

from glamlib.layers.attention import GlobalAttention, WindowAttention, sine_position_code
from glamlib.layers.windows import WindowLayout, shift_mask

CPU = torch.device("cpu")
# (size of the map, window): dividing, padded, clipped; 2D and 3D
MAPS = [
    ((8, 8), (4, 4)),
    ((10, 7), (4, 4)),
    ((3, 9), (4, 4)),
    ((4, 4, 6), (2, 2, 2)),
    ((5, 3, 4), (2, 3, 2)),
    ((1, 2, 4), (3,) * 3),
]


def sequence(layout: WindowLayout, num_tokens: int) -> Tensor:
    return image(2, layout.num_windows, num_tokens + layout.window_area, 24)


def torch_attention(layer: WindowAttention | GlobalAttention) -> nn.MultiheadAttention:
    """torch's attention with the weights of ours."""
    dtype = layer.proj.weight.dtype
    theirs = nn.MultiheadAttention(layer.proj.in_features, layer.num_heads, batch_first=True, dtype=dtype)
    weights = {"in_proj_weight": layer.qkv.weight, "in_proj_bias": layer.qkv.bias}
    weights |= {"out_proj.weight": layer.proj.weight, "out_proj.bias": layer.proj.bias}
    theirs.load_state_dict(weights)
    return theirs


@pytest.mark.parametrize("num_tokens", [0, 1, 5])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("size", "window"), MAPS)
def test_window_attention_equals_torch_window_by_window(size, window, shifted, num_tokens):
    """Each window alone through torch's attention; what is added to its logits is looked up pair by pair.

    Fused without gradients (the CPU's kernel knows none of the bias) and with them, and explicit.
    """
    layer = loud(WindowAttention(24, 3, window))
    theirs = torch_attention(layer)
    layout = WindowLayout.fit(size, window, shifted)
    x = sequence(layout, num_tokens)
    with torch.no_grad():
        fused, _ = layer(x, layout, num_tokens)
        torch.testing.assert_close(layer(x[:1], layout, num_tokens)[0], fused[:1])  # folded in another way
    trained, nothing = layer(x, layout, num_tokens)
    explicit, weights = layer(x, layout, num_tokens, return_attention=True)
    assert nothing is None
    mask = shift_mask(layout, CPU, torch.float32)
    offsets = list(product(*(range(1 - w, w) for w in window)))  # the rows of the table
    inside = list(product(*(range(w) for w in layout.window)))
    for number in range(layout.num_windows):
        added = torch.zeros(3, x.shape[2], x.shape[2])
        for (i, query), (j, key) in product(enumerate(inside), repeat=2):
            offset = tuple(q - k for q, k in zip(query, key, strict=True))
            value = layer.relative_position_bias_table[offsets.index(offset)]
            if mask is not None:
                value = value + mask[number, i, j]
            added[:, num_tokens + i, num_tokens + j] = value
        window_sequence = x[:, number]
        expected, expected_weights = theirs(
            *(window_sequence,) * 3, attn_mask=added.repeat(2, 1, 1), average_attn_weights=False
        )
        for ours in (fused, trained, explicit):
            torch.testing.assert_close(ours[:, number], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(weights[:, number], expected_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["g1_first", "g1_later", "g5_first"])
def test_window_attention_equals_the_released_code(case: str) -> None:
    """2 images of 4 windows, tokens per window or one set for all, concatenated first; a mask if shifted."""
    tensors, arguments = reference(f"window_attention_w4_{case}")
    patches, tokens, mask = tensors["input/0"], tensors["input/2"], tensors.get("input/1")
    window = (arguments["window_size"],) * 2
    layout = WindowLayout.fit((8, 8), window, shifted=mask is not None)
    layer = WindowAttention(arguments["dim"], arguments["num_heads"], window)
    weights = {key.removeprefix("weight/"): value for key, value in tensors.items() if key.startswith("weight/")}
    index = weights.pop("relative_position_index")
    layer.load_state_dict(weights)
    num_tokens = arguments["gt_num"]
    if mask is not None:
        assert torch.equal(mask == 0, shift_mask(layout, CPU, torch.float32) == 0)  # theirs is -100, ours -inf
    bias = layer.bias(WindowLayout.fit((8, 8), window, shifted=False), 0)[0]
    assert torch.equal(bias, layer.relative_position_bias_table[index.long()].permute(2, 0, 1))
    x = torch.cat([tokens.expand(len(patches), num_tokens, -1), patches], dim=1)
    y, _ = layer(x.unflatten(0, (2, 4)), layout, num_tokens)
    y = y.flatten(0, 1)
    torch.testing.assert_close(y[:, num_tokens:], tensors["output/0"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y[:, :num_tokens], tensors["output/1"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("num_tokens", [1, 4])
@pytest.mark.parametrize("threads", [1, 2])  # two, which do not divide three heads, take half of the queries each
def test_global_attention_equals_torch(grid, num_tokens, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer = loud(GlobalAttention(24, 3), 0.3)
    tokens = torch.randn(2, prod(grid), num_tokens, 24, requires_grad=True)
    fused, nothing = layer(tokens, grid)
    explicit, weights = layer(tokens, grid, return_attention=True)
    assert nothing is None
    torch.testing.assert_close(explicit, fused, rtol=1e-5, atol=1e-5)
    x = (tokens + sine_position_code(grid, 24, CPU, torch.float32)[None, :, None]).flatten(1, 2)
    expected, expected_weights = torch_attention(layer)(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(fused.flatten(1, 2), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), tokens, retain_graph=True)[0] for y in (fused, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def check_bfloat16(share: float, layer: nn.Module, x: Tensor, *arguments: object) -> None:
    """Under autocast and converted, the output differs by less than this share of the largest (8 bits: 0.4 %)."""
    exact = layer(x, *arguments)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = layer(x, *arguments)[0]
    for low in (under_autocast, layer.bfloat16()(x.bfloat16(), *arguments)[0]):
        assert low.dtype == torch.bfloat16
        assert 0 < (low.float() - exact).abs().max() < share * exact.abs().max()


def test_bfloat16_is_near_float32() -> None:
    layout = WindowLayout.fit((8, 8), (4, 4), shifted=True)
    check_bfloat16(0.02, loud(WindowAttention(24, 3, (4, 4)), 0.15), 0.5 * sequence(layout, 2), layout, 2)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (64, 1), (37, 74), (2, 3, 4), (8, 9, 10)])
@pytest.mark.parametrize("dim", [24, 32, 96])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_position_code_is_different_for_every_window(grid: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
    code = sine_position_code(grid, dim, CPU, dtype)
    assert code.shape == (prod(grid), dim)
    assert code.dtype == dtype
    assert code.abs().max() <= 1
    if len(code) > 1:
        assert torch.pdist(code.float()).min() > 0.1


@pytest.mark.parametrize(("grid", "dim"), [((3, 4), 8), ((3, 2), 11), ((2, 2, 3), 13)])
def test_position_code_equals_its_formula(grid: tuple[int, ...], dim: int) -> None:
    """Sines of all dimensions, then cosines; wave lengths from 2 pi towards 2000 pi; what does not divide is zero."""
    waves = dim // (2 * len(grid))
    expected = []
    for place in product(*(range(g) for g in grid)):
        angles = [x / 1000 ** (wave / waves) for x in place for wave in range(waves)]
        expected.append([sin(a) for a in angles] + [cos(a) for a in angles] + [0.0] * (dim - 2 * waves * len(grid)))
    code = sine_position_code(grid, dim, CPU, torch.float32)
    torch.testing.assert_close(code, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_what_inference_keeps_serves_training() -> None:
    """Masks, indices and codes are kept between calls: those first made in inference mode must not break autograd."""
    layer, exchange = loud(WindowAttention(24, 3, (5, 3))), loud(GlobalAttention(24, 3))
    layout = WindowLayout.fit((11, 8), (5, 3), shifted=True)  # of no other test: nothing is kept of it yet
    x = sequence(layout, 1)
    with torch.inference_mode():
        layer(x, layout, 1)
        exchange(x, layout.grid)
    for y in (layer(x, layout, 1)[0], exchange(x, layout.grid)[0]):
        y.sum().backward()
    assert layer.relative_position_bias_table.grad.isfinite().all()

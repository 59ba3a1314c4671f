"""Every way to exchange between windows against a brute force of it, what it reaches, and how its cost grows."""

from itertools import product
from math import ceil, floor, prod

import pytest
import torch
import torch.nn.functional as F
from conftest import loud
from test_attention import check_bfloat16, torch_attention
from timm.models.twins import GlobalSubSampleAttn
from torch import Tensor, nn

from glamlib.layers.attention import sine_position_code
from glamlib.layers.mixers import MIXERS, acts_on_patches, create_mixer
from glamlib.layers.token_mixers import orthogonal_features

DIM, HEADS = 24, 3
TOKEN_MIXERS = [name for name in MIXERS if name != "none" and not acts_on_patches(name)]
PATCH_MIXERS = [name for name in MIXERS if acts_on_patches(name)]
ALL = TOKEN_MIXERS + PATCH_MIXERS
GRIDS = [(1, 1), (3, 4), (7, 5), (2, 9), (5, 2, 6)]  # of windows: fewer and more than the pooled cells; 2D and 3D


def mixer(name: str, window: tuple[int, ...] = (3, 3)) -> nn.Module:
    """A mixer in double precision with weights large enough to tell right from wrong.

    Random features are poor where attention is sharp, so there they are smaller.
    """
    return loud(create_mixer(name, DIM, HEADS, window).double(), 0.1 if name == "performer" else 0.3)


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def placed(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Tokens with their position code, as one sequence ``(B, N, C)``."""
    code = sine_position_code(grid, tokens.shape[-1], tokens.device, tokens.dtype)
    return (tokens + code[None, :, None]).flatten(1, 2)


def heads_of(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """q, k and v of ``(B, N, C)``, each ``(B, heads, N, d)``."""
    return tuple(t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in layer.qkv(x).split(DIM, dim=2))


def all_pairs(layer: nn.Module, q: Tensor, k: Tensor, grid: tuple[int, ...], num_tokens: int) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)


def pooled_cells(layer: nn.Module, q: Tensor, k: Tensor, grid: tuple[int, ...], num_tokens: int) -> Tensor:
    """A cell is the mean of the windows it touches, its borders at equal parts of the grid, token by token."""
    cells = [min(g, layer.cells) for g in grid]
    means = []
    for cell in product(*(range(c) for c in cells)):
        touched = [range(floor(i * g / c), ceil((i + 1) * g / c)) for i, g, c in zip(cell, grid, cells, strict=True)]
        windows = list(product(*(range(g) for g in grid)))
        for token in range(num_tokens):
            row = torch.zeros(len(windows), num_tokens, dtype=q.dtype)
            for number, place in enumerate(windows):
                if all(p in t for p, t in zip(place, touched, strict=True)):
                    row[number, token] = 1 / prod(len(t) for t in touched)
            means.append(row.flatten())
    means = torch.stack(means)  # (cells * T, N)
    return (q @ (means @ k).mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ means


def projected(layer: nn.Module, q: Tensor, k: Tensor, grid: tuple[int, ...], num_tokens: int) -> Tensor:
    code = sine_position_code(grid, DIM, q.device, q.dtype)
    rows = []
    for row in layer.rows:
        scores = torch.stack([row @ place for place in code]).exp()
        for token in range(num_tokens):
            shares = torch.zeros(len(code), num_tokens, dtype=q.dtype)
            shares[:, token] = scores / scores.sum()
            rows.append(shares.flatten())
    rows = torch.stack(rows)  # (rank * T, N)
    return (q @ (rows @ k).mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ rows


def positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, x.exp())


def linear(layer: nn.Module, q: Tensor, k: Tensor, grid: tuple[int, ...], num_tokens: int) -> Tensor:
    weights = positive(q) @ positive(k).mT
    return weights / weights.sum(dim=-1, keepdim=True)


def random_features(layer: nn.Module, q: Tensor, k: Tensor, grid: tuple[int, ...], num_tokens: int) -> Tensor:
    def features(x: Tensor) -> Tensor:
        x = x / x.shape[-1] ** 0.25
        return torch.stack([(x @ w - (x * x).sum(dim=-1) / 2).exp() for w in layer.vectors], dim=-1)

    weights = features(q) @ features(k).mT
    return weights / weights.sum(dim=-1, keepdim=True)


def through_memory(layer: nn.Module, q: Tensor, k: Tensor, grid: tuple[int, ...], num_tokens: int) -> Tensor:
    scale = q.shape[-1] ** -0.5
    return (q @ layer.memory.mT * scale).softmax(dim=-1) @ (layer.memory @ k.mT * scale).softmax(dim=-1)


WEIGHTS = {
    "gmsa": all_pairs,
    "pooled": pooled_cells,
    "low_rank": projected,
    "linear": linear,
    "performer": random_features,
    "memory": through_memory,
    "full": all_pairs,
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_and_update_equal_a_brute_force(name: str, grid: tuple[int, ...]) -> None:
    """The matrix of all pairs that the mixers avoid, built from their papers' formulas."""
    assert set(WEIGHTS) >= set(TOKEN_MIXERS)
    num_tokens = 1 if acts_on_patches(name) else 2
    layer = mixer(name, window=(3,) * len(grid))
    tokens = values(2, prod(grid), num_tokens, DIM)
    q, k, v = heads_of(layer, placed(tokens, grid))
    weights = WEIGHTS[name](layer, q, k, grid, num_tokens)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    expected = layer.proj((weights @ v).transpose(1, 2).flatten(2)).view(tokens.shape)
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if name == "performer" else {"rtol": 1e-8, "atol": 1e-8}  # its 1e-6
    update, nothing = layer(tokens, grid)
    assert nothing is None
    torch.testing.assert_close(update, expected, **tolerance)
    explicit, found = layer(tokens, grid, return_attention=True)
    torch.testing.assert_close(explicit, expected, **tolerance)
    torch.testing.assert_close(found, weights, **tolerance)


def test_random_features_are_orthogonal_and_as_long_as_normal_vectors() -> None:
    vectors = orthogonal_features(4096, 16, torch.Generator().manual_seed(3))
    group = vectors[:16] / vectors[:16].norm(dim=1, keepdim=True)
    torch.testing.assert_close(group @ group.T, torch.eye(16), rtol=0, atol=1e-5)
    assert float(vectors.square().sum(dim=1).mean()) == pytest.approx(16, rel=0.03)
    assert float(vectors.mean()) == pytest.approx(0, abs=0.02)
    layers = [create_mixer("performer", 16, 2, (4, 4)) for _ in range(2)]
    assert torch.equal(*(layer.state_dict()["vectors"] for layer in layers))  # the same in every model, and saved
    assert layers[0](1000 * torch.randn(1, 9, 1, 16), (3, 3))[0].isfinite().all()  # no overflow


@pytest.mark.parametrize("size", [(6, 9), (7, 11), (2, 5)])
def test_reduced_equals_twins_subsampled_attention(size: tuple[int, int]) -> None:
    """timm's attention of Twins-SVT has PVT's equations; for the keys, a map that does not divide ends in zeros."""
    layer = mixer("reduced")
    theirs = GlobalSubSampleAttn(DIM, HEADS, sr_ratio=3).double()
    theirs.q.load_state_dict({key: value[:DIM] for key, value in layer.qkv.state_dict().items()})
    theirs.kv.load_state_dict({key: value[DIM:] for key, value in layer.qkv.state_dict().items()})
    kernel = layer.reduce.weight.view(DIM, 3, 3, DIM).permute(0, 3, 1, 2)
    theirs.sr.load_state_dict({"weight": kernel, "bias": layer.reduce.bias})
    theirs.norm.load_state_dict(layer.norm.state_dict())
    theirs.proj.load_state_dict(layer.proj.state_dict())
    patches = values(2, prod(size), 1, DIM)
    height, width = (-(-s // 3) * 3 for s in size)
    map_of = placed(patches, size).view(2, *size, DIM)
    padded = F.pad(map_of, (0, 0, 0, width - size[1], 0, height - size[0]))
    expected = theirs(padded.flatten(1, 2), (height, width)).view(2, height, width, DIM)[:, : size[0], : size[1]]
    update, _ = layer(patches, size)
    torch.testing.assert_close(update.view(2, *size, DIM), expected)


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (3, 2, 4)])
def test_shared_tokens_equal_torch(size: tuple[int, ...]) -> None:
    """Tokens over tokens and patches, then patches over tokens, by torch's attention with the same weights."""
    layer = mixer("shared", window=(3,) * len(size))
    theirs = torch_attention(layer)
    patches = values(2, prod(size), 1, DIM)
    x, tokens = placed(patches, size), layer.tokens.expand(2, -1, -1)
    everything = torch.cat([tokens, x], dim=1)
    tokens = tokens + theirs(tokens, everything, everything, need_weights=False)[0]
    expected, expected_weights = theirs(x, tokens, tokens, average_attn_weights=False)
    update, found = layer(patches, size, return_attention=True)
    torch.testing.assert_close(update[:, :, 0], expected)
    torch.testing.assert_close(found, expected_weights)
    torch.testing.assert_close(layer(patches, size)[0], update)


def steps(length: int, window: int) -> int:
    """By definition: the dilated windows that are needed at a step of ``window``, the smallest step for as many."""
    count = next(n for n in range(1, length + 1) if n * window * window >= length)
    return next(step for step in range(1, window + 1) if count * window * step >= length)


def read_together(size: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """Which patches lie in one dilated window, ``(P, P)``."""
    places = list(product(*(range(s) for s in size)))
    step = [steps(s, w) for s, w in zip(size, window, strict=True)]
    kind = [tuple((p % d, p // (d * w)) for p, d, w in zip(place, step, window, strict=True)) for place in places]
    return torch.tensor([[a == b for b in kind] for a in kind])


@pytest.mark.parametrize("size", [(9, 9), (6, 12), (10, 7), (11, 20), (2, 5), (1, 1), (5, 4, 3)])
def test_sparse_equals_masked_attention(size: tuple[int, ...]) -> None:
    window = (3, 3) if len(size) == 2 else (2, 2, 2)
    layer = mixer("sparse", window)
    patches = values(2, prod(size), 1, DIM)
    q, k, v = heads_of(layer, placed(patches, size))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=read_together(size, window))
    update, _ = layer(patches, size)
    torch.testing.assert_close(update[:, :, 0], layer.proj(y.transpose(1, 2).flatten(2)))
    explicit, weights = layer(patches, size, return_attention=True)
    torch.testing.assert_close(explicit, update)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("name", ["gmsa", "low_rank", "linear", "performer", "memory", "sparse", "reduced", "shared"])
def test_bfloat16_is_near_float32(name: str) -> None:
    torch.manual_seed(0)
    check_bfloat16(0.05, create_mixer(name, DIM, HEADS, (3, 3)), values(2, 35, 1, DIM).float(), (5, 7))

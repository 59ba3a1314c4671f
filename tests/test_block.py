"""The block: full contextual attention by gradients, and what it must not mix."""

from itertools import product
from math import prod

import pytest
import torch
from conftest import loud, refused
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from glamlib.layers.block import GlamBlock
from glamlib.layers.mixers import MIXERS, acts_on_patches
from glamlib.layers.windows import WindowLayout

DIM = 8
# (size of the map, window): three and more windows along a dimension, dividing and not; 2D and 3D
MAPS = [((12, 16), (4, 4)), ((13, 9), (4, 4)), ((6, 6, 6), (2, 2, 2)), ((7, 4, 5), (2, 2, 2))]


def blocks(window: tuple[int, ...], mixer: str = "gmsa", depth: int = 2, **options: object) -> nn.ModuleList:
    """A stage's blocks, every second shifted, with weights large enough that nothing underflows."""
    options = {"mixer": mixer} | options
    made = (GlamBlock(DIM, 2, window, shifted=bool(i % 2), is_last=i == depth - 1, **options) for i in range(depth))
    return loud(nn.ModuleList(made), 0.3)


def start(size: tuple[int, ...], window: tuple[int, ...], num_tokens: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """A map and the tokens of its windows."""
    generator = torch.Generator().manual_seed(1)
    windows = WindowLayout.fit(size, window, shifted=False).num_windows
    x = torch.randn(batch, *size, DIM, generator=generator)
    return x, torch.randn(batch, windows, num_tokens, DIM, generator=generator)


def run(stage: nn.ModuleList, x: Tensor, tokens: Tensor | None) -> Tensor:
    for block in stage:
        x, tokens = block(x, tokens)
    return x


def dependence(stage: nn.ModuleList, x: Tensor, tokens: Tensor | None) -> Tensor:
    """Which patch depends on which: boolean ``(P, P)``, rows are outputs."""
    x = x[:1].double().requires_grad_()
    tokens = None if tokens is None else tokens[:1].double()
    y = run(stage.double(), x, tokens).flatten(1, -2)[0]  # (P, C)
    probe = torch.randn(DIM, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    rows = [torch.autograd.grad(patch @ probe, x, retain_graph=True)[0] for patch in y]
    return torch.stack(rows)[:, 0].flatten(1, -2).abs().sum(dim=-1) > 1e-25


def test_a_mixer_of_tokens_without_tokens_is_refused() -> None:
    """Else the block would be Swin's, without a word."""
    with refused("tokens=None: a block with a mixer of tokens needs some; mixer='none' makes Swin's block"):
        GlamBlock(DIM, 2, (4, 4), shifted=False, mixer="gmsa")(torch.zeros(1, 4, 4, DIM))


@pytest.mark.parametrize("explicit", [False, True])
def test_no_matrix_of_all_tokens_is_stored(explicit: bool) -> None:
    """What a block stores for its backward pass grows with the map; only with weights asked for, as all pairs."""
    block = GlamBlock(DIM, 2, (4, 4), shifted=False, mixer="gmsa")
    largest = []
    for side in (32, 64):
        x, tokens = start((side, side), (4, 4), num_tokens=10, batch=1)
        stored: list[int] = []
        with saved_tensors_hooks(lambda tensor, stored=stored: stored.append(tensor.numel()), lambda _: None):
            block(x.requires_grad_(), tokens, {} if explicit else None)
        largest.append(max(stored))
    assert largest[1] == (16 if explicit else 4) * largest[0]


@pytest.mark.parametrize(("size", "window"), MAPS)
@pytest.mark.parametrize("mixer", [name for name in MIXERS if name != "none"])
def test_full_contextual_attention(mixer: str, size: tuple[int, ...], window: tuple[int, ...]) -> None:
    """After a block with G-MSA and one more block every patch depends on every patch: the paper's claim.

    A mixer of patches needs one block. The dilated windows need a map of whole windows, at most w * w patches a side:
    W-MSA fills what they leave out.
    """
    on_patches = acts_on_patches(mixer)
    if mixer == "sparse":
        size = tuple(min(s // w * w, w * w) for s, w in zip(size, window, strict=True))
    x, tokens = start(size, window, num_tokens=1)
    assert dependence(blocks(window, mixer, 1 if on_patches else 2), x, None if on_patches else tokens).all()


@pytest.mark.parametrize(("num_tokens", "mask_tokens"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize(("size", "window"), MAPS)
def test_without_exchange_a_patch_sees_few_windows(size, window, num_tokens, mask_tokens):
    """Two blocks of Swin reach all of the windows of the first block that a patch's (cut) second window touches.

    Tokens that stay in their windows add one: the first block's window of the same number, which they come from. For a
    wrapped patch that is the opposite edge's. Masked tokens add nothing.
    """
    x, tokens = start(size, window, num_tokens)
    seen = dependence(blocks(window, mixer="none", mask_tokens=mask_tokens), x, tokens if num_tokens else None)
    layout = WindowLayout.fit(size, window, shifted=True)

    def homes(place: tuple[int, ...], shift: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """The window of a patch, and in which dimensions it was wrapped around to get there."""
        moved = [p - s for p, s in zip(place, shift, strict=True)]
        window_of = tuple(m % e // w for m, e, w in zip(moved, layout.padded, layout.window, strict=True))
        return window_of, tuple(m < 0 for m in moved)

    places = list(product(*(range(s) for s in size)))
    first = [homes(place, (0,) * len(size))[0] for place in places]
    second = [homes(place, layout.shift) for place in places]
    expected = torch.zeros_like(seen)
    for p, home in enumerate(second):
        reached = {first[q] for q, other in enumerate(second) if other == home}
        if num_tokens and not mask_tokens:
            reached.add(home[0])
        expected[p] = torch.tensor([window_of in reached for window_of in first])
    assert torch.equal(seen, expected)
    assert seen.float().mean() < 0.6  # far from full
    if window == (4, 4):  # the corner sees its own window, and through unmasked tokens the opposite corner's
        opposite = prod(s % w or w for s, w in zip(size, window, strict=True))
        assert seen[0].sum() == 16 + (opposite if num_tokens and not mask_tokens else 0)


@pytest.mark.parametrize("size", [(12, 16), (13, 9)])
def test_equations_of_the_block_on_a_single_window_map(size: tuple[int, int]) -> None:
    """With one window for the whole map the block is a transformer's, written out: z + W-MSA, g + G-MSA, z + MLP."""
    block = blocks(size)[0]
    x, tokens = start(size, size, num_tokens=3)
    layout = WindowLayout.fit(size, size, shifted=False)
    z = torch.cat([tokens, x.flatten(1, 2)[:, None]], dim=2)
    z = z + block.attn(block.norm1(z), layout, 3)[0]
    g = z[:, :, :3] + block.mixer(block.norm_mixer(z[:, :, :3]), (1, 1))[0]
    z = torch.cat([g, z[:, :, 3:]], dim=2)
    z = z + block.mlp(block.norm2(z))
    y, new_tokens = block(x, tokens)
    torch.testing.assert_close(new_tokens, z[:, :, :3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y.flatten(1, 2), z[:, 0, 3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MIXERS if acts_on_patches(name)])
def test_a_mixer_of_patches_leaves_tokens_in_their_windows(name: str) -> None:
    """It works without tokens and in the last block; tokens, where there are some, do as with no exchange."""
    first, last = blocks((4, 4), name)
    x, tokens = start((13, 9), (4, 4), num_tokens=3)
    assert first(x)[1] is None
    assert last.mixer is not None
    assert not torch.allclose(last(x)[0], first(x)[0])
    alone = GlamBlock(DIM, 2, (4, 4), shifted=False, mixer="none")
    alone.load_state_dict({k: v for k, v in first.state_dict().items() if "mixer" not in k})
    (y, passed), (y_alone, passed_alone) = first(x, tokens), alone(x, tokens)
    assert not torch.allclose(y, y_alone)
    torch.testing.assert_close(passed, passed_alone)


@pytest.mark.parametrize("name", [name for name in MIXERS if acts_on_patches(name)])
def test_equations_of_the_block_with_a_mixer_of_patches(name: str) -> None:
    block = blocks((4, 4), name)[0]
    x, _ = start((13, 9), (4, 4), num_tokens=1)
    plain = GlamBlock(DIM, 2, (4, 4), shifted=False)
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if "mixer" not in k})
    nn.init.zeros_(plain.mlp.fc2.weight)
    nn.init.zeros_(plain.mlp.fc2.bias)
    y = plain(x)[0]  # x + W-MSA
    y = y + block.mixer(block.norm_mixer(y).view(2, 117, 1, 8), (13, 9))[0].view(x.shape)
    torch.testing.assert_close(block(x)[0], y + block.mlp(block.norm2(y)))
    torch.testing.assert_close(block(x, None, {})[0], block(x)[0])

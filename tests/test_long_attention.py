"""Attention over long sequences against its formula in double precision, and when it is used."""

import ctypes
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from glamlib.layers import long_attention
from glamlib.layers.attention import GlobalAttention, attend
from glamlib.layers.long_attention import attend_long, is_long, kernel
from glamlib.study.largest import LargestTensor

# Blocks have 96 rows, and four of them share an update of the maximum: below, at and above whole ones.
LENGTHS = [(1, 1), (5, 97), (96, 96), (97, 384), (300, 385), (384, 700)]


@pytest.fixture
def fresh_kernel() -> Iterator[None]:
    kernel.cache_clear()
    yield
    kernel.cache_clear()


@pytest.fixture(params=["native", "narrow"])
def compiled(request: pytest.FixtureRequest, fresh_kernel: None, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """The kernel for this machine, and for one with registers of eight floats, which AVX-512 machines are too."""
    if request.param == "narrow":
        if torch.backends.cpu.get_cpu_capability() != "AVX512":
            pytest.skip("this machine's own kernel is the narrow one")
        options = ["-march=haswell" if option == "-march=native" else option for option in long_attention._COMPILE]
        monkeypatch.setattr(long_attention, "_COMPILE", options)
    return kernel() or pytest.skip("no C++ compiler here")


def queries_keys_values(queries: int, keys: int, batch: int = 1, heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = (queries, keys, keys)
    return [torch.randn(batch, heads, n, 32, generator=generator, requires_grad=True) for n in lengths]


def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.double(), k.double(), v.double()
    return (q @ k.transpose(-2, -1) / 32**0.5).softmax(-1) @ v


def gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((y * probe).sum(), inputs, retain_graph=True)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_it_is_softmax_attention(queries: int, keys: int) -> None:
    inputs = queries_keys_values(queries, keys, batch=2)
    found, expected = attend_long(*inputs), formula(*inputs)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e3])
def test_weak_and_strong_logits(scale: float) -> None:
    """From nearly equal weights to one weight for each query, with logits up to some 10^5 apart."""
    q, k, v = queries_keys_values(200, 500)
    inputs = [(q * scale).detach().requires_grad_(), k, v]
    found, expected = attend_long(*inputs), formula(*inputs)
    # A logit is known to a float's seventh digit, and an error there is one of the weights' exponents.
    tolerance = max(1e-6, 1e-6 * scale)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=tolerance)
    for ours, theirs, size in zip(gradients(found, inputs), gradients(expected, inputs), (1, scale, 1), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=10 * tolerance * max(size, 1))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.usefixtures("compiled")
def test_threads_share_the_work_out_and_do_not_change_it(threads: int) -> None:
    inputs = queries_keys_values(700, 400, heads=3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = attend_long(*inputs)
        found = gradients(y, inputs)
        again = attend_long(*inputs)
        assert torch.equal(again, y)
        for one, other in zip(gradients(again, inputs), found, strict=True):
            assert torch.equal(one, other)  # to the bit, whatever the threads do first
    finally:
        torch.set_num_threads(before)
    expected = formula(*inputs)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(found, gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("blocks", [1, 2, 5, 143])
def test_shares_are_all_blocks_once(threads: int, blocks: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for heads in (1, 3, 12):
            shares = long_attention._shares_of(heads, blocks)
            assert [block for share in shares for block in share] == list(range(blocks))
            assert heads * len(shares) % threads == 0 or blocks < 2 * threads  # even, if there are enough
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("compiled")
def test_another_default_type_and_no_images() -> None:
    inputs = queries_keys_values(100, 200)
    expected = attend_long(*inputs)
    torch.set_default_dtype(torch.float64)
    try:
        found = attend_long(*inputs)
        of_found = torch.autograd.grad(found.square().sum(), inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
    for one, other in zip(of_found, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        assert torch.equal(one, other)
    assert attend_long(*(x[:0] for x in inputs)).shape == (0, 2, 100, 32)


@pytest.mark.usefixtures("compiled")
def test_a_second_backward_pass_gives_the_same() -> None:
    inputs = queries_keys_values(130, 150)
    y = attend_long(*inputs)
    for one, other in zip(gradients(y, inputs), gradients(y, inputs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("where", [0, 1, 2])
def test_not_a_number_is_not_hidden(where: int) -> None:
    inputs = [x.detach() for x in queries_keys_values(100, 120)]
    inputs[where][0, 0, 7, 3] = float("nan")
    y = attend_long(*inputs)
    assert y[0, 0, 7].isnan().any()
    assert y[0, 1].isfinite().all()


@pytest.mark.usefixtures("compiled")
def test_gradients_of_gradients_are_refused() -> None:
    inputs = queries_keys_values(10, 10)
    with pytest.raises(RuntimeError, match="sdpa_kernel"):
        torch.autograd.grad(attend_long(*inputs).sum(), inputs[0], create_graph=True)


def test_it_is_taken_where_it_pays_and_nowhere_else() -> None:
    if kernel() is None:
        pytest.skip("no C++ compiler here")
    q, k, v = (x.detach() for x in queries_keys_values(2048, 2100))
    assert is_long(q, k, v)
    assert not is_long(q[:, :, :2047], k, v)
    assert not is_long(q, k[:, :, :2000], v[:, :, :2000])
    assert not is_long(q[..., :16], k[..., :16], v[..., :16])
    assert not is_long(q.double(), k.double(), v.double())
    assert not is_long(q.to("meta"), k.to("meta"), v.to("meta"))
    with sdpa_kernel(SDPBackend.MATH):
        assert not is_long(q, k, v)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert not is_long(q, k, v)


def test_global_attention_takes_it_for_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it or with torch's kernel the same output and gradients, of the same packed qkv."""
    if kernel() is None:
        pytest.skip("no C++ compiler here")
    torch.manual_seed(0)
    layer = GlobalAttention(64, 2)
    tokens = torch.randn(1, 21 * 10, 10, 64, requires_grad=True)
    taken = []
    plain = long_attention.attend_long
    monkeypatch.setattr("glamlib.layers.attention.attend_long", lambda *qkv: taken.append(1) or plain(*qkv))
    y, _ = layer(tokens, (21, 10))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        expected, _ = layer(tokens, (21, 10))
    assert taken == [1]
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    parameters = [tokens, *layer.parameters()]
    for ours, theirs in zip(gradients(y, parameters), gradients(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_torch_computes_the_same(
    compiler: str, fresh_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert kernel() is None
    inputs = queries_keys_values(2048, 2048, heads=1)
    assert not is_long(*inputs)
    torch.testing.assert_close(attend(*inputs)[0].double(), formula(*inputs), rtol=1e-4, atol=1e-6)


def test_what_is_kept_grows_with_the_sequence_and_not_with_its_square() -> None:
    if kernel() is None:
        pytest.skip("no C++ compiler here")
    largest = []
    for length in (2304, 4608):
        with LargestTensor() as seen:
            inputs = queries_keys_values(length, length, heads=1)
            y = attend(*inputs)[0]
            assert "LongAttention" in type(y.grad_fn).__name__
            gradients(y, inputs)
        largest.append(seen.numel)
    assert largest[1] == 2 * largest[0]
    assert largest[1] < 4608**2 / 50

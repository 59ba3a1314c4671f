"""No denormal numbers: they slow matrix products down on many processors, and would falsify every benchmark."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from glamlib import create_model, list_models
from glamlib.layers import windows

TINY = torch.finfo(torch.float32).tiny


class Denormals(TorchDispatchMode):
    """Counts in ``found`` the numbers with 0 < |x| < `TINY` among all that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, function: object, _: object, args: tuple = (), kwargs: dict | None = None) -> object:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32 and "empty" not in str(function):
                self.found += int(((tensor != 0) & (tensor.abs() < TINY)).sum())
        return made


def denormals(name: str) -> int:
    """Count them in a forward and a backward pass at first weights, on padded and shifted windows."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3)
    x = torch.randn(2, model.in_channels, *((20, 36, 52) if "nnformer" in name else (72, 104)))
    with Denormals() as seen, sdpa_kernel(SDPBackend.MATH):  # explicit, so that the weights of attention are seen
        model(x).square().mean().backward()
    return seen.found


@pytest.mark.parametrize("name", list_models("*nano*"))
def test_no_denormal_numbers(name):
    assert denormals(name) == 0


def test_masked_logits_of_minus_100_would_make_some(monkeypatch):
    """So the test above can fail. While compiling, masks are not cached: no other test meets these."""
    monkeypatch.setattr(windows, "MASKED", -100.0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert denormals("swin_nano_linear") > 0

"""Gradient checkpointing: the same bits for less memory, in 2D and 3D."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from glamlib import create_model

# Name, overrides, shape of the images or volumes; sizes that do not divide, so that windows are padded and shifted.
NETWORKS = [
    ("swin_nano_upernet", {}, (2, 3, 70, 90)),
    ("glam_swin_nano_upernet", {"num_global_tokens": 3}, (2, 3, 70, 90)),
    ("glam_swin_nano_unet_nlu", {"num_global_tokens": [3, 0, 2, 1]}, (2, 3, 70, 90)),
    ("glam_swin_nano_linear", {"mixer": "pooled"}, (2, 3, 70, 90)),
    ("nnformer_nano", {}, (2, 1, 20, 18, 24)),
    ("glam_nnformer_nano", {"num_global_tokens": 3}, (2, 1, 20, 18, 24)),
]


def gradients(name: str, overrides: dict, shape: tuple[int, ...], checkpointing: bool) -> tuple[dict[str, Tensor], int]:
    """Logits and gradients of a training pass with dropped paths, and the bytes that it kept for the way back."""
    torch.manual_seed(0)
    model: nn.Module = create_model(
        name, num_classes=3, in_channels=shape[1], drop_path=0.5, grad_checkpointing=checkpointing, **overrides
    )
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(2)  # of the paths that are dropped
    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model.train()(x)
    logits.square().mean().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    weights = sum(p.untyped_storage().nbytes() for p in model.parameters())
    return found | {"logits": logits.detach()}, sum(kept.values()) - weights


@pytest.mark.parametrize(("name", "overrides", "shape"), NETWORKS)
def test_same_bits_for_less_memory(name: str, overrides: dict, shape: tuple[int, ...]) -> None:
    """Logits and every gradient bit for bit, also where paths are dropped at random; less is kept meanwhile."""
    plain, kept = gradients(name, overrides, shape, checkpointing=False)
    again, kept_with = gradients(name, overrides, shape, checkpointing=True)
    assert plain.keys() == again.keys()
    for what, value in plain.items():
        assert torch.equal(again[what], value), what
    assert kept_with < 0.6 * kept


def test_a_trace_is_taken_without_it() -> None:
    """Attention that is asked for is stored by the first pass, so nothing is left for a second."""
    model = create_model("glam_swin_nano_linear", num_classes=2, grad_checkpointing=True)
    traces: list[dict] = []
    model.encoder.stages(torch.randn(1, 3, 64, 64), traces)
    assert all(trace["window"].requires_grad for trace in traces)

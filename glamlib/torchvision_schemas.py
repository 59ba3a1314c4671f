"""Lets torchvision import where its compiled part does not fit torch (its PyPI wheel beside a CPU build).

Everything of torchvision that is written in Python works without the compiled part, but its import registers fake
kernels for two compiled operators and stops with "operator torchvision::nms does not exist". Declaring the schemas of
the two is enough. Import this module before the first import of timm or torchvision; it does nothing where the
compiled part loads.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _compiled_part_loads() -> bool:
    """True where torchvision's extension loads; false beside a torch that it was not built for."""
    package = Path(importlib.util.find_spec("torchvision").origin).parent
    library = next((file for suffix in ("so", "pyd") for file in package.glob(f"_C*.{suffix}")), None)
    if library is None:
        return False
    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True


if not _compiled_part_loads():
    # The object must stay alive: its schemas go when it is collected.
    _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for _schema in _SCHEMAS:
        _LIBRARY.define(_schema)

"""Lets torchvision import where its compiled part does not fit torch, as its PyPI wheel beside a CPU build of torch.

What torchvision has in Python works without the compiled part, but its import stops with "operator torchvision::nms
does not exist". Declaring two operators is enough, before the first import of timm or torchvision.
"""

from importlib.util import find_spec
from pathlib import Path

import torch


def _compiled_part_loads() -> bool:
    folder = Path(find_spec("torchvision").origin).parent  # found, not imported
    try:
        for library in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
            torch.ops.load_library(library)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


if not _compiled_part_loads():
    _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # its schemas live as long as this object
    for _name in ("nms", "qnms"):
        _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

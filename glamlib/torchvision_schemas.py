"""Lets torchvision import where its compiled part does not fit torch, as its PyPI wheel beside a CPU build of torch.

What torchvision has in Python works without the compiled part, but its import stops with "operator torchvision::nms
does not exist". Declaring two operators is enough.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # its schemas live as long as this object
    for _name in ("nms", "qnms"):
        _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

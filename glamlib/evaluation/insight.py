"""Where a model looks: attention carried through blocks and tokens to the whole map, and the effective receptive field.

Sources: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), for the rollout; Luo et al.,
"Understanding the Effective Receptive Field" (NeurIPS 2016).
"""

import numpy as np
import torch
from torch import Tensor

from glamlib.data.transforms import normalise
from glamlib.layers.windows import WindowLayout, to_windows
from glamlib.models.encoder import Encoder
from glamlib.models.segmenter import Segmenter


def _members(layout: WindowLayout, num_tokens: int) -> Tensor:
    """Return, for each window, where its sequence sits in the state [patches ; tokens]: ``(nW, T + P)``, -1 padding."""
    patches = int(np.prod(layout.size))
    numbers = torch.arange(1, patches + 1).view(1, *layout.size, 1)  # from 1: the padding that to_windows adds is 0
    windows = to_windows(numbers, layout)[0, :, :, 0] - 1  # (nW, P)
    tokens = patches + torch.arange(layout.num_windows * num_tokens).view(layout.num_windows, num_tokens)
    return torch.cat([tokens, windows], dim=1)


@torch.no_grad()
def attention_rollout(encoder: Encoder, image: Tensor, stage: int = 0) -> Tensor:
    """Return how much each patch of a stage's output draws on each patch of its input, through all its blocks.

    Every attention, averaged over heads, is mixed half and half with the identity of its residual; windows and G-MSA
    act on one state of all patches and all tokens. What comes from the tokens' learned start is no part of the image
    and is left out. Of one normalised image ``(1, C, *size)`` the result is ``(P, P)``: rows (queries) sum to 1, P the
    patches of the stage's map in row-major order.
    """
    traces: list[dict] = []
    encoder.stages(image, traces)
    first = sum(len(layer.blocks) for layer in encoder.layers[:stage])
    traces = traces[first : first + len(encoder.layers[stage].blocks)]
    layout = traces[0]["layout"]
    patches = int(np.prod(layout.size))
    num_tokens = traces[0]["window"].shape[-1] - layout.window_area
    states = patches + layout.num_windows * num_tokens
    flow = torch.eye(states)
    for trace in traces:
        weights = trace["window"][0].mean(dim=1)  # (nW, T + P, T + P)
        step = torch.zeros(states + 1, states + 1)  # one more for the padding
        for members, attention in zip(_members(trace["layout"], num_tokens), weights, strict=True):
            # a padded patch is -1, the last row and column, which are dropped
            step[members[:, None], members[None, :]] = attention
        flow = (flow + step[:-1, :-1] @ flow) / 2
        if trace["global"] is not None:
            tokens = flow[patches:]
            flow[patches:] = (tokens + trace["global"][0].mean(dim=0) @ tokens) / 2
    flow = flow[:patches, :patches]
    return flow / flow.sum(dim=1, keepdim=True)


def effective_receptive_field(model: Segmenter, images: Tensor) -> np.ndarray:
    """Return how much the centre pixel's logits change with each pixel, ``(H, W)`` float32, sum 1.

    That is the absolute gradient of their sum, over channels and averaged over ``images`` (uint8 ``(B, 3, H, W)``).
    """
    model.eval()
    x = normalise(images.to(next(model.parameters()).device)).requires_grad_(True)
    centre = model(x)[:, :, x.shape[2] // 2, x.shape[3] // 2]
    (gradient,) = torch.autograd.grad(centre.sum(), x)
    field = gradient.abs().sum(dim=(0, 1)).cpu()
    return (field / field.sum()).numpy().astype(np.float32)

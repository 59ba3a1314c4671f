"""Where a model looks: attention carried through blocks and tokens to the whole map, and the effective receptive field.

Sources: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), for the rollout; Luo et al.,
"Understanding the Effective Receptive Field" (NeurIPS 2016).
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from glamlib.data.transforms import normalise
from glamlib.errors import InputError, one_of
from glamlib.evaluation.inference import memory_suffices
from glamlib.layers.windows import WindowLayout, from_windows, to_windows
from glamlib.models.encoder import Encoder
from glamlib.models.segmenter import EncoderDecoder

MOST_WEIGHTS = 2**28  # of one attention: 1 GiB


def stage_layout(encoder: Encoder, size: Sequence[int], stage: int) -> WindowLayout:
    """Return how the unshifted windows of a stage lie on the map of an image of ``size`` = (height, width) pixels.

    Raises InputError for a stage that is not there, or an encoder without windows or that mixes patches.
    """
    if not isinstance(encoder, Encoder) or any(block.mixes_patches for block in encoder.layers[0].blocks):
        raise InputError("attention rollout: of Swin and GLAM alone, with any mixer of tokens")
    if not 0 <= stage < len(encoder.layers):
        raise one_of("stage", stage, range(len(encoder.layers)))
    stride = encoder.patch_embed.patch_size[0] * 2**stage
    return WindowLayout.fit(tuple(-(-side // stride) for side in size), encoder.layers[stage].window_size, False)


def finest_stage(encoder: Encoder, size: Sequence[int]) -> int:
    """Return the first stage whose W-MSA and G-MSA have at most `MOST_WEIGHTS` weights each, or the last."""
    stage_layout(encoder, size, 0)  # refuses what has no stages
    for stage, layer in enumerate(encoder.layers):
        layout = stage_layout(encoder, size, stage)
        tokens = 0 if layer.global_tokens is None else len(layer.global_tokens)
        local = layout.num_windows * (tokens + layout.window_area) ** 2
        if layer.blocks[0].attn.num_heads * max(local, (layout.num_windows * tokens) ** 2) <= MOST_WEIGHTS:
            break
    return stage


@torch.no_grad()
def attention_rollout(encoder: Encoder, image: Tensor, stage: int = 0, queries: Sequence[int] | None = None) -> Tensor:
    """Return how much each patch of a stage's output draws on each patch of its input, through all its blocks.

    Every attention, averaged over heads, is mixed half and half with the identity of its residual. What comes from the
    tokens' learned start is no part of the image and is left out. Of one normalised image ``(1, C, H, W)`` the result
    is ``(Q, P)``: a row, of sum 1, for each of the ``queries`` (all P patches if None), numbers of patches of the
    stage's map in row-major order. Rows are carried backwards, so no matrix over all pairs of patches is formed.
    """
    size = stage_layout(encoder, image.shape[2:], stage).size
    traces: list[dict] = []
    x = encoder.patch_embed(image)
    for level, layer in enumerate(encoder.layers[: stage + 1]):
        x = layer(layer.downsample(x), traces if level == stage else None)
    chosen = torch.arange(prod(size)) if queries is None else torch.tensor(queries)
    rows = one_hot(chosen.to(x.device), prod(size)).float()  # (Q, P)
    num_tokens = traces[0]["window"].shape[-1] - traces[0]["layout"].window_area
    tokens = rows.new_zeros(len(rows), traces[0]["layout"].num_windows, num_tokens)  # (Q, nW, T)
    for trace in reversed(traces):
        layout = trace["layout"]
        if trace["global"] is not None:
            exchanged = tokens.flatten(1) @ trace["global"][0].mean(dim=0)  # (Q, nW * T)
            tokens = (tokens + exchanged.view_as(tokens)) / 2
        windows = to_windows(rows.view(-1, *size, 1), layout)[..., 0]  # (Q, nW, P)
        state = torch.cat([tokens, windows], dim=2)  # (Q, nW, T + P)
        state = (state + torch.einsum("qwi,wij->qwj", state, trace["window"][0].mean(dim=1))) / 2
        tokens, windows = state.split([num_tokens, layout.window_area], dim=2)
        rows = from_windows(windows[..., None], layout).flatten(1)  # (Q, P), without what flows to padding
    return rows / rows.sum(dim=1, keepdim=True)


def effective_receptive_field(model: EncoderDecoder, images: Tensor, at: tuple[int, int] | None = None) -> np.ndarray:
    """Return how much the logits of the pixel ``at`` (row, column) change with each pixel, ``(H, W)`` float32, sum 1.

    That is the absolute gradient of their sum, over channels and uint8 ``images`` ``(B, 3, H, W)``, one at a time.
    ``at`` None: the centre. InputError where memory does not hold one image with its gradients.
    """
    model.eval()
    height, width = images.shape[2:]
    row, column = at or (height // 2, width // 2)
    field, device = torch.zeros(height, width), next(model.parameters()).device
    for image in images.split(1):
        with memory_suffices(device, f"{height} x {width} pixels do not fit with gradients", "a smaller image"):
            x = normalise(image.to(device)).requires_grad_(True)
            (gradient,) = torch.autograd.grad(model(x)[:, :, row, column].sum(), x)
            field += gradient[0].abs().sum(dim=0).cpu()
    return (field / field.sum()).numpy().astype(np.float32)

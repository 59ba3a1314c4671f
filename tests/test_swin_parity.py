"""With no global tokens the encoder is Swin: equal to timm's, weights copied, at every stage.

Where a map is no multiple of the window, timm 1.0 rolls first and pads after, while its mask is made for the padded
map, so that rows wrapped around from the other side are not masked. Swin (and the released GLAM code) pads first. The
comparison at such sizes therefore hands timm's attention a map that is padded already; everything else is timm's.
"""

import pytest
import torch
import torch.nn.functional as F
from conftest import loud
from timm.models import swin_transformer as timm_swin
from torch import Tensor, nn

from glamlib import ModelConfig
from glamlib.models.encoder import Encoder


def pad_before_roll(block: nn.Module) -> None:
    attention = block._attn

    def padded(x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        widths = (0, -width % block.window_size[1], 0, -height % block.window_size[0])
        return attention(F.pad(x, (0, 0, *widths)))[:, :height, :width]

    block._attn = padded


def swin_pair(size: tuple[int, int], window: int) -> tuple[Encoder, nn.Module]:
    shape = {"embed_dim": 24, "depths": (2, 2, 3), "num_heads": (3, 6, 6)}
    theirs = timm_swin.SwinTransformer(img_size=size, window_size=window, num_classes=0, strict_img_size=False, **shape)
    loud(theirs, 0.1)
    ours = Encoder(ModelConfig(window_size=window, **shape))
    weights = {k: v for k, v in theirs.state_dict().items() if k in ours.state_dict()}
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(key.startswith("norms.") for key in missing)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize(
    ("size", "window", "divides"),
    [((112, 112), 7, True), ((64, 64), 4, True), ((84, 132), 4, False), ((75, 61), 4, False), ((124, 148), 5, False)],
)
def test_every_stage_equals_timm(size: tuple[int, int], window: int, divides: bool) -> None:
    ours, theirs = swin_pair((-(-size[0] // 4) * 4, -(-size[1] // 4) * 4), window)
    if not divides:
        for stage in theirs.layers:
            for block in stage.blocks:
                pad_before_roll(block)
    image = torch.randn(2, 3, *size)
    x = theirs.patch_embed(F.pad(image, (0, -size[1] % 4, 0, -size[0] % 4)))
    for stage, mine in zip(theirs.layers, ours.stages(image)[1], strict=True):
        x = stage(x)
        assert mine.shape == x.shape
        torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-5)


def test_clipped_window_equals_timm_with_the_table_cropped() -> None:
    """On a map smaller than the window timm has a small bias table; ours uses the middle of the full one."""
    torch.manual_seed(0)
    theirs = timm_swin.SwinTransformer(
        img_size=(20, 12), window_size=7, embed_dim=24, depths=(2,), num_heads=(3,), num_classes=0
    ).eval()
    ours = Encoder(ModelConfig(embed_dim=24, depths=(2,), num_heads=(3,))).eval()
    weights = theirs.state_dict()
    for block in range(2):
        key = f"layers.0.blocks.{block}.attn.relative_position_bias_table"
        small = torch.randn(9, 5, 3)  # offsets -4..4 and -2..2 of a 5x3 map
        weights[key].copy_(small.flatten(0, 1))
        full = torch.full((13, 13, 3), float("nan"))
        full[2:11, 4:9] = small
        weights[key] = full.flatten(0, 1)
    ours.load_state_dict({k: v for k, v in weights.items() if k in ours.state_dict()}, strict=False)
    image = torch.randn(1, 3, 20, 12)
    expected = theirs.layers[0](theirs.patch_embed(image))
    torch.testing.assert_close(ours.stages(image)[1][0], expected, rtol=1e-5, atol=1e-5)

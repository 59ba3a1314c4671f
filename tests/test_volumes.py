"""nnFormer and GLAM-nnFormer: parts by hand, cost."""

import torch
import torch.nn.functional as F
from conftest import image
from fvcore_counter import fvcore_macs
from torch import nn

from glamlib import create_model
from glamlib.cost.count import COMPONENTS, count_macs, count_parameters
from glamlib.models.volumes import VolumeEmbed, VolumeExpand, VolumeMerging


@torch.no_grad()
def test_convolutions_by_hand() -> None:
    """Order of activation and norm, zeros beyond the border, and the cut of an odd map."""
    torch.manual_seed(0)
    x = image(1, 5, 4, 3, 6)  # channels-last, odd in its sizes
    merging = VolumeMerging(6)
    nn.init.normal_(merging.norm.bias)  # padding before the norm would show
    y = merging(x)
    assert y.shape == (1, 3, 2, 2, 12)
    z = F.layer_norm(F.gelu(x), (6,), merging.norm.weight, merging.norm.bias)
    expected = torch.einsum("oc,c->o", merging.reduction.weight[:, :, 0, 0, 0], z[0, 4, 2, 2])
    expected += torch.einsum("oc,c->o", merging.reduction.weight[:, :, 0, 1, 0], z[0, 4, 3, 2])
    torch.testing.assert_close(y[0, 2, 1, 1], expected + merging.reduction.bias)

    expand = VolumeExpand(6)
    y = expand(x, (9, 7, 5))
    assert y.shape == (1, 9, 7, 5, 3)
    z = F.layer_norm(x, (6,))
    expected = torch.einsum("co,c->o", expand.up.weight[:, :, 1, 0, 1], z[0, 3, 2, 1]) + expand.up.bias
    torch.testing.assert_close(y[0, 7, 4, 3], expected)

    pair = VolumeEmbed(2, 8, (1, 2, 2)).proj1
    x = image(1, 2, 3, 4, 6)
    z = F.conv3d(x, pair.conv1.weight, pair.conv1.bias, stride=(1, 2, 2), padding=1)
    for conv in (pair.conv2, None):
        z = F.gelu(z)
        z = (z - z.mean(dim=1, keepdim=True)) / (z.var(dim=1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        z = z if conv is None else F.conv3d(z, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(pair(x), z, rtol=1e-4, atol=1e-5)


def test_cost_by_hand() -> None:
    """Every component of a network of two stages, from its sizes; 12 x 8 x 8 patches, then 6 x 4 x 4."""
    sizes = {"depths": [2, 3], "num_heads": [1, 2], "embed_dim": 12}
    model = create_model("glam_nnformer_nano", num_classes=3, in_channels=1, num_global_tokens=5, **sizes)
    macs = count_macs(model, 16, 16, depth=24)
    assert macs == fvcore_macs(model, 24, 16, 16)
    stages = [(12, 12 * 8 * 8, 12, 2), (24, 6 * 4 * 4, 2, 3)]  # channels, patches, windows of 4, blocks
    expected = dict.fromkeys(COMPONENTS, 0)
    for level, (c, patches, windows, depth) in enumerate(stages):
        passes = 2 if level == 0 else 1  # encoder and decoder, or the bottom alone
        window = patches // windows if level == 0 else 4 * 4 * 4  # the second map is padded from 6 to 8
        length = 5 + window
        expected["w_msa"] += passes * depth * windows * (4 * length * c**2 + 2 * length**2 * c)
        expected["g_msa"] += passes * (depth - 1) * (4 * 5 * windows * c**2 + 2 * (5 * windows) ** 2 * c)
        expected["mlp"] += passes * 8 * c**2 * (depth * patches + (depth - 1) * windows * 5)
    embedded = 12 * 8 * 8
    expected["patch_embedding"] = 27 * embedded * (1 * 6 + 6 * 6 + 6 * 12 + 12 * 12)
    expected["merging"] = expected["upsampling"] = 6 * 4 * 4 * 8 * 12 * 24
    expected["decoder"] = embedded * 8 * 12 * 3
    assert macs == {"total": sum(expected.values())} | expected
    counts = count_parameters(model)
    assert counts["merging"] == 8 * 12 * 24 + 24 + 2 * 12
    assert counts["upsampling"] == 8 * 12 * 24 + 12 + 2 * 24
    assert counts["decoder"] == 12 * 3 * 8 + 3

"""The neighbours' backbones: timm's own outputs, published sizes, attention by brute force, errors, weights files."""

import re
from math import sqrt
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import image, loud, parameters_of
from safetensors.torch import save_file
from timm.models.crossvit import CrossVit
from timm.models.tnt import TNT
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from glamlib import InputError, create_model
from glamlib.backbones.config import BACKBONES, TIMM_WEIGHTS
from glamlib.backbones.stages import ConvAttention
from glamlib.backbones.t2t_vit import TokenPerformer, TokensToToken, sinusoid
from glamlib.backbones.vil import SlidingChunkAttention
from glamlib.cost import count
from glamlib.cost.count import count_macs

TIMM = list(TIMM_WEIGHTS)
PUBLISHED = pd.read_csv(Path(count.__file__).with_name("published_backbones.csv"), comment="#")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def backbone_of(name: str, **options: object) -> nn.Module:
    return create_model(f"{name}_upernet", num_classes=2, **options).encoder


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.endswith("_nano")])
@torch.no_grad()
def test_features_are_those_of_the_padded_image(name: str) -> None:
    backbone, x = backbone_of(name).eval(), image(2, 3, 61, 107)
    for feature, whole, stride in zip(backbone(x), backbone(F.pad(x, (0, 21, 0, 3))), (4, 8, 16, 32), strict=True):
        rows, columns = -(-61 // stride), -(-107 // stride)
        torch.testing.assert_close(feature, whole[:, :, :rows, :columns], **CLOSE)


@pytest.mark.parametrize("name", TIMM)
def test_a_size_that_timm_has_is_timms(name: str) -> None:
    """The same names and shapes but for the classifier, and CrossViT's last exchange, which only moves class tokens."""
    with torch.device("meta"):
        theirs = timm.create_model(TIMM_WEIGHTS[name].partition(".")[0])
        ours = backbone_of(name).body.net
    state = theirs.state_dict()
    for key, value in ours.state_dict().items():
        assert state.pop(key).shape == value.shape, key
    left = {"crossvit": r"head\.|blocks\.2\.(projs|fusion|revert_projs)\.", "twins": r"head\.|norm\."}
    pattern = left.get(name.partition("_")[0], r"head\.")
    assert state
    assert [key for key in state if not re.match(pattern, key)] == []
    rows = PUBLISHED[(PUBLISHED["backbone"] == name) & (PUBLISHED["task"] == "classify")]
    for millions in rows["parameters_millions"]:
        assert parameters_of(theirs) / 1e6 == pytest.approx(millions, rel=5e-3)


@pytest.mark.parametrize("name", sorted(set(PUBLISHED["backbone"]) - set(TIMM)))
def test_a_reimplementation_has_as_many_parameters_as_published(name: str) -> None:
    """With the classifier: its norm, 1000 classes, and what the source counts besides.

    PVT: the class token and its position. T2T-ViT: fixed positions and random features, which its authors store as
    parameters; its norm is the map's, too. ViL: within 0.1 M, since the published network has full attention in its
    last two stages and so other tables of positions.
    """
    with torch.device("meta"):
        body = backbone_of(name).body
    dim = BACKBONES[name].embed_dims[-1]
    extra, rounding = {
        "pvt": (2 * dim + 2 * dim, 0.05),
        "t2t_vit": ((1 + 14 * 14) * dim + 2 * 32 * 64, 0.05),
        "cvt": (2 * dim, 0.5),
        "vil": (2 * dim, 0.1),
    }[BACKBONES[name].backbone]
    (millions,) = PUBLISHED.loc[PUBLISHED["backbone"] == name, "parameters_millions"]
    assert (parameters_of(body) + 1000 * (dim + 1) + extra) / 1e6 == pytest.approx(millions, abs=rounding)


# The smallest of each family with published multiply-adds; the larger ones repeat the same blocks
SMALL = [
    *("pvt_medium", "pvt_v2_b2", "twins_pcpvt_small", "twins_svt_small", "vil_tiny", "cvt_13", "t2t_vit_14", "tnt_s"),
    "crossvit_15",
]


def published(name: str, task: str) -> dict:
    (row,) = PUBLISHED[(PUBLISHED["backbone"] == name) & (PUBLISHED["task"] == task)].to_dict("records")
    return row


@pytest.mark.parametrize("name", SMALL)
def test_multiply_adds_of_published_classifiers(name: str) -> None:
    """Within 5 %: some authors round or leave out attention's products. ViL: ours has chunks where theirs has none."""
    row = published(name, "classify")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        backbone_of(name).body(torch.zeros(1, 3, row["height"], row["width"]))
    tolerance = 0.13 if name == "vil_tiny" else 0.05
    assert counter.get_total_flops() / 2e9 == pytest.approx(row["gmacs"], rel=tolerance)


@pytest.mark.parametrize("name", ["twins_svt_small", "twins_pcpvt_small"])
def test_twins_under_upernet_cost_what_is_published(name: str) -> None:
    row = published(name, "upernet")
    with torch.device("meta"):
        model = create_model(f"{name}_upernet", num_classes=150)
    dim = model.config.embed_dims[-1]
    unused_classifier = 1000 * (dim + 1) + 2 * dim
    assert (parameters_of(model) + unused_classifier) / 1e6 == pytest.approx(row["parameters_millions"], rel=7e-3)
    assert count_macs(model, row["height"], row["width"])["total"] / 1e9 == pytest.approx(row["gmacs"], rel=4e-3)


@pytest.mark.parametrize(
    ("name", "entry"),
    [("twins_svt_nano", "twins_svt_small"), ("twins_pcpvt_nano", "twins_pcpvt_small"), ("pvt_v2_nano", "pvt_v2_b1")],
)
@torch.no_grad()
def test_features_equal_timms(name: str, entry: str) -> None:
    sizes = {key: getattr(BACKBONES[name], key) for key in ("embed_dims", "depths", "num_heads", "mlp_ratios")}
    sizes |= {"wss": (4,) * 4} if "svt" in name else {}
    theirs = timm.create_model(entry, features_only=True, **sizes).eval()
    ours = loud(backbone_of(name), 0.1)
    own = ours.body.net.state_dict()
    if name == "pvt_v2_nano":
        own = {re.sub(r"stages\.(\d)", r"stages_\1", key): value for key, value in own.items()}
    theirs.load_state_dict({key: own[key.removeprefix("model.")] for key in theirs.state_dict()})
    x = image(2, 3, 64, 96)
    for mine, expected in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(mine, expected, **CLOSE)


@torch.no_grad()
def test_last_map_equals_timms_at_the_size_that_timm_is_made_for() -> None:
    """CrossViT's two maps are resized to a common one; what its last exchange has of its own, patches do not read."""
    crossvit = {"img_size": 240, "img_scale": (1.0, 224 / 240), "patch_size": (12, 16), "embed_dim": (64, 128)}
    crossvit |= {"depth": ((1, 2, 0),) * 3, "num_heads": (4, 8), "mlp_ratio": (4, 4, 1)}
    tnt = {"embed_dim": 128, "inner_dim": 16, "depth": 8, "num_heads_inner": 2, "num_heads_outer": 8}
    for name, make, sizes, sides in (
        ("vit_nano", VisionTransformer, {"embed_dim": 128, "depth": 8, "num_heads": 8}, (14,)),
        ("tnt_nano", TNT, tnt, (14,)),
        ("crossvit_nano", CrossVit, crossvit, (20, 14)),
    ):
        x = image(2, 3, *(sizes.get("img_size", 224),) * 2)
        ours, net = loud(backbone_of(name).body, 0.1), make(num_classes=0, **sizes).eval()
        net.load_state_dict(ours.net.state_dict(), strict=name != "crossvit_nano")
        tokens = net.forward_features(x)
        maps = [
            branch[:, 1:].transpose(1, 2).unflatten(2, (side, side))
            for branch, side in zip([tokens] if len(sides) == 1 else tokens, sides, strict=True)
        ]
        expected = [F.interpolate(each, size=ours(x).shape[2:], mode="bilinear") for each in maps]
        torch.testing.assert_close(ours(x), torch.cat(expected, dim=1), **CLOSE)


@pytest.mark.parametrize("class_tokens", [0, 1])
@torch.no_grad()
def test_cvt_attends_to_convolved_keys(class_tokens: int) -> None:
    attn = loud(ConvAttention(dim=12, num_heads=3), 0.2)
    projections = (attn.q, attn.k, attn.v)
    for projection in projections:
        projection.bn.running_mean.normal_()
        projection.bn.running_var.uniform_(0.5, 2)
    x = image(2, class_tokens + 5 * 6, 12)
    padded = F.pad(x[:, class_tokens:].transpose(1, 2).reshape(2, 12, 5, 6), (1, 1, 1, 1))

    def convolved(projection: nn.Module, stride: int) -> Tensor:
        places = [(r, c) for r in range(0, 5, stride) for c in range(0, 6, stride)]
        out = [(padded[:, :, r : r + 3, c : c + 3] * projection.conv.weight[:, 0]).sum((2, 3)) for r, c in places]
        bn = projection.bn
        out = (torch.stack(out, dim=1) - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
        return torch.cat([x[:, :class_tokens], out], dim=1)

    layers = [projection.linear for projection in projections]
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    attention.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
    attention.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    attention.out_proj.load_state_dict(attn.proj.state_dict())
    attention.in_proj_weight[:12] *= sqrt(4 / 12)  # torch scales by a head's 4 channels, CvT by all 12
    attention.in_proj_bias[:12] *= sqrt(4 / 12)
    q, k, v = convolved(attn.q, 1), convolved(attn.k, 2), convolved(attn.v, 2)
    assert k.shape[1] == class_tokens + 3 * 3
    torch.testing.assert_close(attn(x, (5, 6)), attention(q, k, v)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns", "chunk"), [(6, 9, 3), (7, 5, 3), (2, 9, 4)])
@torch.no_grad()
def test_vil_attends_to_its_chunk_and_the_eight_around_it(rows: int, columns: int, chunk: int) -> None:
    attn = loud(SlidingChunkAttention(dim=12, num_heads=3, chunk=chunk, updates_token=True))
    x, token = image(2, rows, columns, 12), image(2, 1, 12) + 1
    update = attn(torch.cat([token, x.flatten(1, 2)], dim=1), (rows, columns))
    update, token_update = update[:, 1:].view(x.shape), update[:, 0]
    k, v = attn.kv(torch.cat([token, x.flatten(1, 2)], dim=1)).unflatten(-1, (2, 3, 4)).unbind(2)  # (B, N, heads, d)
    q, q_token = attn.query(x).unflatten(-1, (3, 4)), attn.query(token).unflatten(-1, (3, 4))
    side = 4 * chunk - 1
    expected = torch.empty_like(x)
    for i in range(rows):
        for j in range(columns):
            near, bias = [0], [attn.bias_to_token[:, 0, 0]]
            for a in range(rows):
                for b in range(columns):
                    if abs(a // chunk - i // chunk) <= 1 and abs(b // chunk - j // chunk) <= 1:
                        near.append(1 + a * columns + b)
                        bias.append(attn.local_bias[(i - a + 2 * chunk - 1) * side + j - b + 2 * chunk - 1])
            logits = (q[:, i, j, None] * k[:, near]).sum(-1) / 2 + torch.stack(bias)  # (B, keys, heads)
            read = (logits.softmax(dim=1)[..., None] * v[:, near]).sum(1)
            expected[:, i, j] = attn.proj(read.flatten(1))
    torch.testing.assert_close(update, expected, **CLOSE)
    logits = (q_token * k).sum(-1) / 2  # one token: (B, N, heads)
    logits[:, 0] += attn.bias_of_token[:, 0, 0]
    logits[:, 1:] += attn.bias_from_token[:, 0, 0]
    read = (logits.softmax(dim=1)[..., None] * v).sum(1)
    torch.testing.assert_close(token_update, attn.proj(read.flatten(1)), **CLOSE)


@torch.no_grad()
def test_t2t_random_features_approach_softmax_attention() -> None:
    torch.manual_seed(0)
    performer = TokenPerformer(in_dim=20, dim=16)
    torch.testing.assert_close(performer.w @ performer.w.T, 8 * torch.eye(8), rtol=1e-5, atol=1e-5)
    performer.w = torch.randn(200_000, 16)
    q, k, v = torch.randn(3, 2, 7, 16) * torch.tensor([0.3, 0.3, 2])[:, None, None, None]
    expected = (q @ k.transpose(1, 2)).softmax(dim=-1) @ v
    torch.testing.assert_close(performer.attend(q, k, v), expected, rtol=0, atol=0.05)
    assert (expected - v.mean(dim=1, keepdim=True)).abs().max() > 0.4  # it is not the mean of all


@torch.no_grad()
def test_t2t_merges_neighbours() -> None:
    """The first patches are those of 7 x 7 pixels every 4; the result's tokens are in the map's order."""
    body = TokensToToken(3, embed_dim=24, token_dim=8).eval()
    seen = []
    body.attention1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = image(2, 3, 32, 64)
    tokens = body(x)
    assert tokens.shape == (2, 2, 4, 24)
    torch.testing.assert_close(seen[0][:, 16 + 2], F.pad(x, (2, 2, 2, 2))[:, :, 4:11, 8:15].flatten(1))
    code = sinusoid(5, 6)[0]
    assert code[3, 2] == pytest.approx(torch.tensor(3 / 10000 ** (2 / 6)).sin().item())
    assert code[3, 5] == pytest.approx(torch.tensor(3 / 10000 ** (4 / 6)).cos().item())


def test_a_file_of_timms_weights_loads_and_another_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"embed_dims": (32, 64, 128, 256), "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 16)}
    theirs = timm.create_model("twins_svt_small", mlp_ratios=(4,) * 4, **sizes).state_dict()
    path = tmp_path / "twins.safetensors"
    save_file(theirs, path)
    own = create_model("twins_svt_nano_upernet", num_classes=2, pretrained=path).encoder.body.net.state_dict()
    assert own.keys() == {key for key in theirs if not key.startswith(("head.", "norm."))}
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    for name, options in (("pvt_nano", {}), ("twins_svt_nano", {"depths": [1] * 4})):
        with pytest.raises(InputError, match=f"{path}: does not fit {name}; first keys that do not fit: .*blocks.0"):
            backbone_of(name, pretrained=path, **options)
    with pytest.raises(InputError, match=r"no ImageNet weights for pvt_nano; timm has .*twins_svt_small"):
        backbone_of("pvt_nano", pretrained=True)

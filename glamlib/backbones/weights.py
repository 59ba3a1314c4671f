"""ImageNet weights of timm's networks, put into encoders and backbones of the same size."""

import re
from pathlib import Path

import timm
from torch import Tensor, nn

from glamlib.backbones.config import TIMM_WEIGHTS
from glamlib.errors import InputError

_SWIN = {f"swin_{size}": f"swin_{size}_patch4_window7_224.ms_in1k" for size in ("tiny", "small", "base")}
_TIMM = _SWIN | TIMM_WEIGHTS
# Only a classifier has these: its head, computed buffers, CrossViT's last exchange
_UNUSED = re.compile(
    r"^(head|norm|fc_norm)\.|(relative_position_index|attn_mask)$|^blocks\.2\.(projs|fusion|revert_projs)\."
)
# Only our encoder has these; they start as initialised
_OURS = re.compile(r"^norms\.|^layers\.\d\.(global_tokens|position_table\.|.*\b(mixer|norm_mixer)\.)")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return a state dict from a safetensors or torch file, or raise an InputError that names the file.

    Microsoft's files have the merging at the end of a stage; it moves to the start of the next.
    """
    if not path.is_file():
        raise InputError(f"no weights file {path}")
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # every format raises its own, and what is no state dict fails anywhere
        raise InputError(
            f"{path}: refused, it is damaged or holds something other than weights ({type(error).__name__})"
        ) from None
    if "layers.0.downsample.norm.weight" not in state:
        return state
    return {
        re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", key): value
        for key, value in state.items()
    }


def load_weights(encoder: nn.Module, name: str, source: bool | str | Path) -> None:
    """Put ImageNet weights into an encoder or backbone; what a classifier lacks stays as initialised.

    ViT's and TNT's were trained on colours of mean and deviation 0.5, all others on ImageNet's, which we use.

    Args:
        encoder: Swin's or GLAM's, or a backbone. A file for a backbone that timm lacks has the names of its ``body``.
        name: of the backbone.
        source: True for timm's weights, fitted to the channels of the images, or a file of weights.

    Raises:
        InputError: no such weights, no connection (says which file to fetch), or keys that do not fit.
    """
    body = getattr(encoder, "body", encoder)
    net = getattr(body, "net", body)
    if source is True:
        if name not in _TIMM:
            raise InputError(f"pretrained=True: no ImageNet weights for {name}; timm has {', '.join(_TIMM)}")
        channels = next(module for module in net.modules() if isinstance(module, nn.Conv2d)).in_channels
        try:
            state = timm.create_model(_TIMM[name], pretrained=True, in_chans=channels).state_dict()
        except Exception as error:  # hub, network and cache each raise their own
            raise InputError(
                f"pretrained=True: cannot fetch timm/{_TIMM[name]} ({type(error).__name__}); download its "
                "model.safetensors from huggingface.co and pass pretrained=PATH; runs with pretrained=imagenet "
                "find Swin's as GLAM_DATA/weights/swin_SIZE_patch4_window7_224.safetensors"
            ) from None
    else:
        state = read_weights(Path(source))
    own = net.state_dict()
    used = {key: value for key, value in state.items() if key in own or not _UNUSED.search(key)}
    bad = [key for key, value in used.items() if key not in own or own[key].shape != value.shape]
    missing = [key for key in own if key not in used and not _OURS.search(key)]
    if bad or missing:
        raise InputError(
            f"{source}: does not fit {name}; first keys that do not fit: {(bad + missing)[:3]} "
            f"({len(bad)} unknown or of another shape, {len(missing)} missing)"
        )
    net.load_state_dict(used, strict=False)

"""ImageNet weights of timm's networks, put into the backbones that are built from them.

ViT's and TNT's were trained on colours of mean and deviation 0.5, all others' on ImageNet's, which this library uses.
"""

import re
from pathlib import Path

from torch import Tensor, nn

from glamlib.backbones.config import TIMM_WEIGHTS
from glamlib.errors import InputError
from glamlib.models.weights import read_weights

# What a file may hold beyond the backbone: classifiers, buffers that are computed, and CrossViT's last exchange
_LEFT_OUT = re.compile(
    r"^(head|norm|fc_norm)\.|(relative_position_index|attn_mask)$|^blocks\.2\.(projs|fusion|revert_projs)\."
)
_OURS = re.compile(r"^norms\.")  # Swin's norms of the pyramid, which its classifier has not


def _fetch(name: str, in_channels: int) -> dict[str, Tensor]:
    """Return timm's weights; its first convolution is fitted to ``in_channels``."""
    if name not in TIMM_WEIGHTS:
        raise InputError(f"pretrained=True: timm has no weights for {name}; it has some for {', '.join(TIMM_WEIGHTS)}")
    import timm

    try:
        return timm.create_model(TIMM_WEIGHTS[name], pretrained=True, in_chans=in_channels).state_dict()
    except Exception as error:  # hub, network and cache each raise their own
        raise InputError(
            f"pretrained=True: cannot fetch timm/{TIMM_WEIGHTS[name]} ({type(error).__name__}); download its "
            "model.safetensors from huggingface.co and pass pretrained=PATH"
        ) from None


def load_weights(backbone: nn.Module, name: str, source: bool | str | Path) -> None:
    """Put ImageNet weights into a backbone; what a classifier has not (the pyramid's layers) stays as it is.

    Args:
        backbone: from `create_backbone`.
        name: its name.
        source: True for timm's, or a file (safetensors or torch) of weights with the names of timm's network; for a
            backbone that timm has not, with those of the backbone's ``body``.

    Raises:
        InputError: no such weights for this backbone, no network (says which file to put where), or keys that do not
            fit.
    """
    body = getattr(backbone, "body", backbone)
    net = getattr(body, "net", body)
    own = net.state_dict()
    if source is True:
        first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
        state = _fetch(name, first.in_channels)
    else:
        state = read_weights(Path(source))
    used = {key: value for key, value in state.items() if key in own or not _LEFT_OUT.search(key)}
    bad = [key for key, value in used.items() if key not in own or own[key].shape != value.shape]
    missing = [key for key in own if key not in used and not _OURS.search(key)]
    if bad or missing:
        raise InputError(
            f"{source}: does not fit {name}; first keys that do not fit: {(bad + missing)[:3]} "
            f"({len(bad)} unknown or of another shape, {len(missing)} missing)"
        )
    net.load_state_dict(used, strict=False)

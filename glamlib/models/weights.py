"""ImageNet weights of timm's Swin, put into an encoder of the same size."""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from glamlib.errors import InputError
from glamlib.models.segmenter import Segmenter
from glamlib.models.unet import UNetDecoder

_TIMM_NAMES = {size: f"swin_{size}_patch4_window7_224.ms_in1k" for size in ("tiny", "small", "base")}
# What starts as initialised: parts that Swin's classifier has not.
_OURS = ("norms.", ".mixer.", ".norm_mixer.", ".global_tokens")


def _is_unused(key: str) -> bool:
    """True for what a classifier has and an encoder has not, and for buffers that are computed here."""
    return key.startswith(("head.", "norm.")) or key.endswith(("relative_position_index", "attn_mask"))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return a state dict from a safetensors or torch file (weights_only); InputError that names the file if it cannot.

    Microsoft's files keep theirs under ``model``, and the merging at the end of a stage instead of at the next one's
    start; both are put right.
    """
    if not path.is_file():
        raise InputError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable safetensors or torch weights file ({type(error).__name__})") from None
    except Exception as error:  # torch raises its unpickler's own error class for anything but plain weights
        raise InputError(
            f"{path}: refused, it is damaged or holds more than weights ({type(error).__name__})"
        ) from None
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a weights file, it holds a {type(state).__name__}")
    if "layers.0.downsample.norm.weight" in state:
        return {re.sub(r"^layers\.(\d+)\.downsample", _next_stage, key): value for key, value in state.items()}
    return state


def _next_stage(found: re.Match) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


def load_swin_weights(model: Segmenter, name: str, source: bool | str | Path) -> None:
    """Put Swin's weights into ``model.encoder``; what Swin has not (tokens, mixers, output norms) stays as it is.

    Raises:
        InputError: no such weights for this model, no network (says which file to put where), or keys that do not fit.
    """
    if source is True:
        size = name.split("_")[-2]
        if size not in _TIMM_NAMES:
            raise InputError(
                f"pretrained=True: no ImageNet weights for {name}; there are some for {', '.join(_TIMM_NAMES)}"
            )
        import timm

        try:
            state = timm.create_model(_TIMM_NAMES[size], pretrained=True).state_dict()
        except Exception as error:  # hub, network and cache each raise their own
            raise InputError(
                f"pretrained=True: cannot fetch timm/{_TIMM_NAMES[size]} ({type(error).__name__}); download its "
                "model.safetensors from huggingface.co and pass pretrained=PATH"
            ) from None
    else:
        state = read_weights(Path(source))
    used = {key: value for key, value in state.items() if not _is_unused(key)}
    own = model.encoder.state_dict()
    bad = [key for key, value in used.items() if key not in own or own[key].shape != value.shape]
    missing = [key for key in own if key not in used and not any(part in key for part in _OURS)]
    if bad or missing:
        raise InputError(
            f"{source}: does not fit {name}; first keys that do not fit: {(bad + missing)[:3]} "
            f"({len(bad)} unknown or of another shape, {len(missing)} missing)"
        )
    model.encoder.load_state_dict(used, strict=False)
    if isinstance(model.decoder, UNetDecoder):
        _mirror(model)


def _mirror(model: Segmenter) -> None:
    """Start each of a UNet decoder's stages from the encoder's stage of the same level, as the released code does."""
    for stage in model.decoder.layers_up:
        source = model.encoder.layers[stage.level].blocks.state_dict()
        swin = {key: value for key, value in source.items() if not any(part in f".{key}" for part in _OURS)}
        stage.blocks.load_state_dict(swin, strict=False)

"""glamlib: window attention with global tokens (GLAM), the networks around it, and the study of them.

The public names are loaded when they are first used, so that what needs no torch (planning a study, say) does not
wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import InputError
    from .models.config import ModelConfig
    from .models.timm_tokens.add import add_global_tokens
    from .models.zoo import create_model, list_models

__all__ = ["InputError", "ModelConfig", "add_global_tokens", "create_model", "list_models"]

_HOME = {
    "InputError": ".errors",
    "ModelConfig": ".models.config",
    "add_global_tokens": ".models.timm_tokens.add",
    "create_model": ".models.zoo",
    "list_models": ".models.zoo",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'glamlib' has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)

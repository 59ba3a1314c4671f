"""glamlib: window attention with global tokens (GLAM), the networks around it, and the study of them."""

import glamlib.torchvision_schemas  # noqa: F401  (before anything imports timm)

# isort: split
from glamlib.errors import InputError
from glamlib.models.config import ModelConfig
from glamlib.models.timm_tokens import add_global_tokens
from glamlib.zoo import create_model, list_models

__all__ = ["InputError", "ModelConfig", "add_global_tokens", "create_model", "list_models"]

"""The networks: encoders, decoders, and the table of named models."""

import glamlib.torchvision_schemas  # noqa: F401  (before anything imports timm)

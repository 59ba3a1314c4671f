"""The method: windows, attention with global tokens, what exchanges between windows, and the block made of them."""

import glamlib.torchvision_schemas  # noqa: F401  (before anything imports timm)

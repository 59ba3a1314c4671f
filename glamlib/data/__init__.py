"""What is seen: generated scenes, street scenes, one's own folder, volumes. Nothing here knows a model."""

import glamlib.torchvision_schemas  # noqa: F401  (before anything imports torchvision)

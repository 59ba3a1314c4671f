"""Global tokens in timm's window transformers: their attention, their blocks and stages, and what turns a model."""

"""The networks: configurations, encoders, decoders, pretrained weights."""

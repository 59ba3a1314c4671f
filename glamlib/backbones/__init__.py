"""The neighbours: other people's transformers as feature pyramids, under the decoder of this library.

timm's are used where it has them, and a compact implementation of ours where it has none (PVT v1, T2T-ViT, CvT, ViL).
``create_model(f"{name}_upernet", ...).encoder`` is the backbone alone.
"""

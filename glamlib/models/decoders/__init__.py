"""Decoders: from an encoder's features, highest resolution first, to logits."""

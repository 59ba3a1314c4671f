"""The method: windows, attention with global tokens, what exchanges between windows, and the block made of them."""

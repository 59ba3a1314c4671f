"""Networks for volumes: nnFormer, and GLAM-nnFormer with global tokens."""

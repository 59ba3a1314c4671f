"""Ways to exchange information between windows, in place of G-MSA: one idea a file, from the paper it names."""

"""The networks: encoders, decoders, and the table of named models."""

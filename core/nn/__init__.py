"""The modules that techniques swap in, and the reference Transformer."""

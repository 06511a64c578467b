"""Other architectures in the place of a Transformer's parts."""

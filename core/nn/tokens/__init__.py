"""Blocks of a Vision Transformer that pass on fewer tokens than they get."""

"""Data sets and how a model's answers to them are scored."""

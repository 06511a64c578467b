"""Compression techniques, the models and tasks they work on, and how they are measured and stored."""

"""Weights, or whole parts, that are taken out."""

"""Masks that are found while the weights are trained."""

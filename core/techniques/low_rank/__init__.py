"""Weights as products of thinner matrices."""

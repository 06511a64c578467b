"""Bundles: a run in one file, written from one store and imported into another. Loads no torch."""

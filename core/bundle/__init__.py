"""A run in one file: written from one store, checked and read into another. Loads no torch."""

"""Artifacts, the files of a stage: writing, reading and storing them."""

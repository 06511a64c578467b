"""The files that a stage leaves: writing, reading and storing them."""

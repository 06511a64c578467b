"""The spec of a run: parsing, and validation against the published schemas. Loads no torch."""

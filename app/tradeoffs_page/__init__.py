"""The parts of the Trade-offs page."""

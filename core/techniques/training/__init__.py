"""Training: the step that every other method can take part in."""

"""Runs beside one another: where they differ, and whether the difference is more than chance. Loads no torch."""

"""Techniques, models and tasks of other packages, found by their entry points. Loads no torch itself."""

from importlib.metadata import entry_points


def plugged(group: str) -> dict[str, type]:
    """What installed packages add to `slimboard.<group>` (techniques, models or tasks), by name."""
    return {entry.name: entry.load() for entry in entry_points(group=f"slimboard.{group}")}

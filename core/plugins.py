"""Techniques, models and tasks of other packages, found by their entry points. Loads no torch itself."""

from importlib.metadata import entry_points
from typing import TypeVar

GROUPS = ("slimboard.techniques", "slimboard.models", "slimboard.tasks")

Base = TypeVar("Base")


def plugged(group: str, base: type[Base]) -> dict[str, type[Base]]:
    """Subclasses of `base` that installed packages add to `slimboard.<group>` (techniques, models or tasks), by name.

    Raises TypeError, naming the entry point, for anything else.
    """
    found: dict[str, type[Base]] = {}
    for entry in entry_points(group=f"slimboard.{group}"):
        cls = entry.load()
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise TypeError(f"{entry.value}, plugged into slimboard.{group} as {entry.name}, is no {base.__name__}")
        found[entry.name] = cls
    return found


def packages() -> list[str]:
    """Packages that plug something in, with their versions: "acme-nets 1.0"."""
    found = {entry.dist for group in GROUPS for entry in entry_points(group=group)}
    return sorted(f"{package.name} {package.version}" for package in found if package is not None)

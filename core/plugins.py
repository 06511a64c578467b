"""Techniques, models, tasks and runtimes of other packages, found by their entry points. Loads no torch itself."""

from importlib.metadata import entry_points
from typing import TypeVar

COMPUTING = ("slimboard.techniques", "slimboard.models", "slimboard.tasks")  # runtimes compute no stage, they time it

Base = TypeVar("Base")


def load_plugins(group: str, base: type[Base]) -> dict[str, type[Base]]:
    """Subclasses of `base` that installed packages add to `slimboard.<group>`, by name.

    `group` is techniques, models, tasks or runtimes. Raises TypeError, naming the entry point, for anything else.
    """
    found: dict[str, type[Base]] = {}
    for entry in entry_points(group=f"slimboard.{group}"):
        cls = entry.load()
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise TypeError(f"{entry.value}, plugged into slimboard.{group} as {entry.name}, is not a {base.__name__}")
        found[entry.name] = cls
    return found


def list_packages() -> list[str]:
    """Packages that plug in what computes a stage, with their versions: "acme-nets 1.0"."""
    found = {entry.dist for group in COMPUTING for entry in entry_points(group=group)}
    return sorted(f"{package.name} {package.version}" for package in found if package is not None)


def find_package(group: str, name: str) -> str | None:
    """The package that plugs `name` into `slimboard.<group>`, with its version; None if no package does."""
    for entry in entry_points(group=f"slimboard.{group}", name=name):
        if entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    return None

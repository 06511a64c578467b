"""Every technique by its name: the one table to add a line to."""

from core.techniques.base import Technique

TECHNIQUES: dict[str, type[Technique]] = {}

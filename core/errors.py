"""Validation errors, and how a run or a technique can fail. Loads no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Problem:
    """One validation error: field, value, message and remedy."""

    field: str  # "recipe[2].rtn.bits"
    value: object
    message: str  # "must be at most 8"
    remedy: str  # "Choose a number from 2 to 8."

    def __str__(self) -> str:
        return f"{self.field} = {self.value!r}: {self.message}. {self.remedy}"


class SpecError(ValueError):
    """An invalid spec; every problem names its field, its value and the remedy."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    @classmethod
    def of(cls, field: str, value: object, message: str, remedy: str) -> "SpecError":
        """The error of a single problem."""
        return cls([Problem(field, value, message, remedy)])

    def at(self, place: str) -> "SpecError":
        """The same error with fields relative to `place` written in full."""
        return SpecError([replace(p, field=f"{place}.{p.field}") for p in self.problems])

    def moved(self, old: str, new: str) -> "SpecError":
        """The same error with the fields of the part `old` ("model") named as those of `new` ("reference")."""

        def renamed(field: str) -> str:
            return new + field.removeprefix(old) if field.startswith(old) else field

        return SpecError([replace(p, field=renamed(p.field)) for p in self.problems])


class Cancelled(Exception):
    """The user cancelled this run."""


class Interrupted(Exception):
    """The worker must stop: progress is saved and the run returns to the queue."""


class TechniqueFailure(RuntimeError):
    """A technique failed on this subject (a loss that is not finite, a singular matrix)."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A remedy that suggests the known name nearest to a misspelt one, or lists all of them."""
    known = sorted(names)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(known)}."

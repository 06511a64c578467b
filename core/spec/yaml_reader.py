"""Reads YAML as plain data: executes nothing, and limits the expansion of aliases. Loads no torch."""

import math
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from core.errors import Problem, SpecError

MOST_CHARACTERS = 1_000_000
MOST_VALUES = 20_000  # with every alias written out
DEEPEST = 50
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of characters


class _Loader(yaml.SafeLoader):
    """The safe loader, which also rejects duplicate keys: otherwise the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping; raises ConstructorError for a key that was there before."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(text: str) -> Any:
    """The data in a YAML text; raises SpecError, with the line, if it cannot be read."""
    if len(text) > MOST_CHARACTERS:
        message = f"is longer than {MOST_CHARACTERS:,} characters"
        raise SpecError.of("spec", f"{text[:40]} …", message, "Check that this is the spec's file.")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        problem = getattr(error, "problem", None) or "cannot be read"
        there = "".join(text.splitlines()[line - 1 : line])
        raise SpecError.of(f"line {line}", there, problem, "Correct the YAML there.") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise SpecError.of("spec", "", f"cannot be read: {error}", "Correct the YAML there.") from error


def check(value: Any) -> None:
    """Raise SpecError for data that is endless, vast once its aliases are written out, or holds what no store keeps."""
    if _written_out(value, {}, DEEPEST) > MOST_VALUES:
        message = f"expands to more than {MOST_VALUES:,} values"
        raise SpecError.of("spec", "", message, "Write it without aliases that refer to aliases.")
    problems = list(_not_kept(value, ""))
    if problems:
        raise SpecError(problems)


def _written_out(value: Any, known: dict[int, int], levels: int) -> int:
    """The number of values; those referred to twice count twice."""
    if not isinstance(value, (dict, list)):
        return 1
    if levels == 0:
        raise _too_deep()
    if id(value) not in known:
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(item, known, levels - 1) for item in inside)
    return known[id(value)]


def _too_deep() -> SpecError:
    message = f"contains itself, or is nested more than {DEEPEST} levels deep"
    return SpecError.of("spec", "", message, "Use fewer levels, and no alias inside the value that it refers to.")


def _not_kept(value: Any, field: str) -> Iterator[Problem]:
    """Values that a store cannot hold or compare."""
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem(field or "spec", value, "is not a finite number", "Give a number.")
    elif isinstance(value, str) and _NO_TEXT.search(value):
        yield Problem(field or "spec", value, "contains characters that are not valid text", "Remove them.")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_kept(item, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_kept(item, f"{field}[{index}]")

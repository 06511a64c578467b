"""References to stages in URLs and commands: "12,15.2" is the last stage of run 12, and stage 2 of run 15."""

import re
from collections.abc import Iterable

from core.store.comparison import ComparedItem

MOST = 100
_ITEM = re.compile(r"(\d{1,9})(?:\.(\d{1,3}))?")


class AddressError(ValueError):
    """A text that is not a stage reference; the message says which part."""


def parse(text: str) -> list[ComparedItem]:
    """The referenced items, without duplicates, in order; raises AddressError."""
    items: dict[ComparedItem, None] = {}
    for word in re.split(r"[\s,;]+", text.strip()):
        if not word:
            continue
        found = _ITEM.fullmatch(word)
        if found is None:
            raise AddressError(f"“{word}” is not a run or stage. Write a run as 12, or one of its stages as 12.3.")
        items[ComparedItem(int(found[1]), None if found[2] is None else int(found[2]))] = None
    if len(items) > MOST:
        raise AddressError(f"Cannot compare {len(items)} stages. Name at most {MOST}.")
    return list(items)


def write(items: Iterable[ComparedItem]) -> str:
    """The items as `parse` reads them."""
    return ",".join(name(item) for item in items)


def name(item: ComparedItem) -> str:
    """An item's short name: "12" or "12.3"."""
    return str(item.run_id) if item.position is None else f"{item.run_id}.{item.position}"


def title(short: str, label: str) -> str:
    """The title of an item: "run 12 · rtn", "run 12.3 · rtn".

    A number alone would look like a stage's position, as on a run's page.
    """
    return f"run {short} · {label}"

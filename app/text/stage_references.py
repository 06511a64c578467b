"""Which stages are compared, as the page's address says it: "12,15.2" is run 12's last stage, and run 15's stage 2."""

import re
from collections.abc import Iterable

from core.store.comparison import ComparedItem

MOST = 100
_ITEM = re.compile(r"(\d{1,9})(?:\.(\d{1,3}))?")


class AddressError(ValueError):
    """What of the text is no stage, in words."""


def parse(text: str) -> list[ComparedItem]:
    """The items named in a text, each once, in order; raises AddressError."""
    items: dict[ComparedItem, None] = {}
    for word in re.split(r"[\s,;]+", text.strip()):
        if not word:
            continue
        found = _ITEM.fullmatch(word)
        if found is None:
            raise AddressError(f"“{word}” names no stage. Write runs as 12, or a stage of one as 12.3.")
        items[ComparedItem(int(found[1]), None if found[2] is None else int(found[2]))] = None
    if len(items) > MOST:
        raise AddressError(f"{len(items)} stages are more than a page compares. Name at most {MOST}.")
    return list(items)


def write(items: Iterable[ComparedItem]) -> str:
    """The items as `parse` reads them."""
    return ",".join(name(item) for item in items)


def name(item: ComparedItem) -> str:
    """An item's short name: "12" or "12.3"."""
    return str(item.run_id) if item.position is None else f"{item.run_id}.{item.position}"


def title(short: str, label: str) -> str:
    """How an item with this short name reads: "run 12 · rtn", "run 12.3 · rtn".

    A number alone would pass for a stage's, as it is one on a run's page.
    """
    return f"run {short} · {label}"

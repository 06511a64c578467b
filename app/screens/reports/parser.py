"""A report's text in parts: Markdown, and views of the board, each on a line of its own. Pure.

`{{compare?runs=3,7}}` is what the page Compare shows at that address; an address copied from the browser will do.
"""

import re
from dataclasses import dataclass

from app.web.query_string import PAGES, parameters

_LINE = re.compile(r"\s*\{\{\s*(?:https?://[^/\s]+)?/?(\w*)\?(\S*?)\s*\}\}\s*")


@dataclass(frozen=True)
class Embedded:
    """A page of the board and the settings that its address names."""

    page: str
    query: str

    @property
    def settings(self) -> dict[str, str | list[str]]:
        """The settings by their names in the address."""
        return parameters(self.query)


def written(page: str, query: str) -> str:
    """The line that stands for a view."""
    return f"{{{{{page}?{query}}}}}"


def parts(text: str) -> list[str | Embedded]:
    """The text's parts in order; a line that names no page that can stand in a report is Markdown."""
    found: list[str | Embedded] = []
    lines: list[str] = []
    for line in text.splitlines():
        named = _LINE.fullmatch(line)
        page = (named[1] or "tradeoffs") if named else ""
        if named is None or page not in PAGES:
            lines.append(line)
            continue
        found += ["\n".join(lines)] if "".join(lines).strip() else []
        lines.clear()
        found.append(Embedded(page, named[2]))
    return found + (["\n".join(lines)] if "".join(lines).strip() else [])

"""A report's text in parts: Markdown, and embedded views, each on its own line. Pure.

`{{compare?runs=3,7}}` is what the Compare page shows at that URL; a URL copied from the browser works too.
"""

import re
from dataclasses import dataclass

from app.web.query_string import PAGES, parse_query

_LINE = re.compile(r"\s*\{\{\s*(?:https?://[^/\s]+)?/?(\w*)\?(\S*?)\s*\}\}\s*")


@dataclass(frozen=True)
class Embedded:
    """A page and the settings in its URL."""

    page: str
    query: str

    @property
    def settings(self) -> dict[str, str | list[str]]:
        """The settings by URL parameter."""
        return parse_query(self.query)


def write_line(page: str, query: str) -> str:
    """The line that embeds a view."""
    return f"{{{{{page}?{query}}}}}"


def parse(text: str) -> list[str | Embedded]:
    """The text's parts in order; a line that names no page that can be embedded is Markdown."""
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

"""A page's settings as a query string. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

PAGES = {"tradeoffs": "./", "runs": "runs", "compare": "compare", "provenance": "provenance"}  # paths by page
State = Mapping[str, str | float | bool | Sequence[str] | None]


def query_of(state: State) -> str:
    """The settings as a query string, without unset ones."""
    given = {name: value for name, value in state.items() if value is not None and value != "" and value != []}
    return urlencode({name: write_value(value) for name, value in given.items()}, doseq=True)


def parse_query(query: str) -> dict[str, str | list[str]]:
    """A query string's values by name, as Streamlit reads them."""
    found = parse_qs(query)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def write_value(value: Any) -> Any:
    """A value as written in a URL."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else value

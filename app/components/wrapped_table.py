"""Tables whose cells wrap, so that long labels or kernels do not cut off columns."""

import re
from collections.abc import Collection, Sequence

import pandas as pd
import streamlit as st

from app.text import formats

GREY = "color: #8C8C8C"
_BRACKETS = re.compile(r"\([^)]*\)")
_UNITS = re.compile(r"(?<=\d) (?=(?:[kMGT]?B|[kMGT%]|m?[sJ]|min|bits|nats|points)(?!\w))")
_HOLDS = "\N{NO-BREAK SPACE}"


def show(table: pd.DataFrame, grey: Sequence[bool] = (), markdown: Collection[str] = ()) -> None:
    """Draw a table of literal texts, with the columns in `markdown` as Markdown and the rows in `grey` in grey."""
    written = table.reset_index(drop=True)
    for name in table:
        cells = written[name] if name in markdown else written[name].map(formats.plain)
        written[name] = cells.map(wrap_cell)
    if any(grey):
        st.table(written.style.apply(lambda row: [GREY if grey[row.name] else ""] * len(row), axis=1), hide_index=True)
    else:
        st.table(written, hide_index=True)


def wrap_cell(text: str) -> str:
    """A cell's text, which wraps before brackets but not inside them, and never between a number and its unit."""
    held = _UNITS.sub(_HOLDS, text.replace(" ·", f"{_HOLDS}·"))
    return _BRACKETS.sub(lambda found: found[0].replace(" ", _HOLDS), held)

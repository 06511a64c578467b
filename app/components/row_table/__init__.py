"""A table as plain HTML: text and links, checkboxes to select rows, sortable headers.

Streamlit's own table takes the browser at least 150 ms to start, too long for the most used pages, and cannot tell the
server how to sort. Cells are text, never HTML.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from app.components.wrapped_table import wrap_cell

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A column's header and the format of its cells."""

    name: str
    orders: tuple[
        tuple[str, str], ...
    ] = ()  # (name, "ascending" or "descending") that clicks on the header cycle through
    colours: tuple[tuple[str, str], ...] = ()  # (text, Streamlit's name of a colour): cells with this text are badges
    link: str = ""  # URL prefix before the row's id: cells are links
    wraps: bool = False  # cells wrap; others are truncated to one line


@dataclass(frozen=True)
class Row:
    """A row's cells, in the order of the columns; `id` identifies what it stands for."""

    id: int
    cells: Sequence[str]


def show(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    key: str,
    caption: str,
    order: str = "",
    on_order: Callable[[str], None] | None = None,
    selectable: bool = False,
) -> list[int]:
    """Draw the table; returns the ids of the selected rows.

    `caption` is the accessible name, `order` the current sort order. A click on a header calls `on_order` with the new
    order's name before the page reruns.
    """

    def take_order() -> None:
        if on_order is not None:
            on_order(st.session_state[key]["order"])

    data = {
        "columns": [asdict(column) for column in columns],
        "rows": [{"id": row.id, "cells": _cells(columns, row)} for row in rows],
        "caption": caption,
        "order": order,
        "selectable": selectable,
    }
    state = _component()(
        data=data,
        key=key,
        default={"selected": []},
        on_selected_change=_nothing,
        on_order_change=take_order,
    )
    return _known(state.selected, rows)


def _cells(columns: Sequence[Column], row: Row) -> list[str]:
    return [wrap_cell(cell) if column.wraps else cell for column, cell in zip(columns, row.cells, strict=True)]


def _nothing() -> None:
    """Do nothing: Streamlit keeps a component's value only if it has a callback."""


def _known(selected: Any, rows: Sequence[Row]) -> list[int]:
    """The selected ids that are shown; the browser's input is not trusted."""
    ticked = set(selected) if isinstance(selected, list) else set()
    return [row.id for row in rows if row.id in ticked]


@cache
def _component() -> Callable[..., Any]:
    css, js = ((HERE / f"row_table.{kind}").read_text() for kind in ("css", "js"))
    return st.components.v2.component("row_table", css=css, js=js)

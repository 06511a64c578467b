"""A table of rows as plain HTML: text and links, boxes to select rows, heads to sort by.

Streamlit's own table takes the browser 150 ms and more to start, which the pages that people open most do not have; it
cannot tell the server how to sort either. Cells are text, never HTML.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from app.components.wrapped_table import wrapping

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A column's head, and what its cells are besides text."""

    name: str
    orders: tuple[tuple[str, str], ...] = ()  # (name, "ascending" or "descending") that clicks on the head sort by
    colours: tuple[tuple[str, str], ...] = ()  # (text, Streamlit's name of a colour): such cells are badges
    link: str = ""  # what a row's address is before its id: cells are links
    wraps: bool = False  # cells take as many lines as they need, broken well; others are cut at the end of their line


@dataclass(frozen=True)
class Row:
    """A row's cells, in the order of the columns; `id` is what it stands for."""

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
    """Draw the table; returns the ids of the rows whose boxes are ticked.

    `caption` says to screen readers what it lists, `order` is the one that its rows are in. A click on a head calls
    `on_order` with the order's name before the page runs again.
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
    return [wrapping(cell) if column.wraps else cell for column, cell in zip(columns, row.cells, strict=True)]


def _nothing() -> None:
    """A component's value is kept only where something listens for its change."""


def _known(selected: Any, rows: Sequence[Row]) -> list[int]:
    """Those of the ticked ids that are shown; the browser sends what it likes."""
    ticked = set(selected) if isinstance(selected, list) else set()
    return [row.id for row in rows if row.id in ticked]


@cache
def _component() -> Callable[..., Any]:
    css, js = ((HERE / f"row_table.{kind}").read_text() for kind in ("css", "js"))
    return st.components.v2.component("row_table", css=css, js=js)

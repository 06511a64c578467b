"""URL state: settings of a page in its URL, whether or not their widgets are drawn.

Streamlit keeps a bound widget's value in the URL only while the widget is drawn, and each widget costs a browser 10 to
20 ms. So a closed box draws nothing; the page reads the URL, and a widget writes to it when it changes.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from app.text import formats
from app.web.query_string import write_value

PROJECT = "project"  # in the URL of every page, if there are several


def text(name: str) -> str:
    """A setting's text; empty if it is not set."""
    return str(st.query_params.get(name, ""))


def several(name: str) -> list[str]:
    """All values of a setting."""
    return list(st.query_params.get_all(name))


def number(name: str) -> float | None:
    """A setting's number; None if it is not set or not a number."""
    try:
        return float(text(name))
    except ValueError:
        return None


def flag(name: str, default: bool) -> bool:
    """Whether a setting is on."""
    return {"true": True, "false": False}.get(text(name), default)


def make_suffix() -> str:
    """Query suffix that keeps a link in this page's project."""
    project = text(PROJECT)
    return f"&{urlencode({PROJECT: project})}" if project else ""


def widget(name: str, value: Any) -> dict[str, Any]:
    """Keyword arguments of a widget that shows this value of the setting and writes changes to the URL."""
    key = f"address {name}"
    st.session_state[key] = value
    return {"key": key, "on_change": _keep, "args": (name, key)}


def draw_menu(label: str, name: str, offered: Sequence[str], chosen: str) -> None:
    """Draw a menu of the setting's values behind a button that shows the current one.

    Browsers draw such buttons faster than select boxes, and load less for them.
    """
    key = f"address {name}"
    st.menu_button(
        f":gray[{label}:] {formats.plain(chosen)}",
        offered,
        key=key,
        on_click=_keep,
        args=(name, key),
        format_func=lambda value: f"**{formats.plain(value)}**" if value == chosen else formats.plain(value),
    )


def forget(*names: str) -> None:
    """Remove settings from the URL."""
    for name in names:
        st.query_params.pop(name, None)


def _keep(name: str, key: str) -> None:
    value = st.session_state[key]
    if value is None or value in ("", []):
        forget(name)
    else:
        st.query_params[name] = write_value(value)

"""Settings of a page that stand in its address, whether or not the widgets that change them are drawn.

Streamlit keeps a bound widget's value in the address only while the widget is drawn, and a browser takes 10 to 20 ms
for each. So a box that is closed draws nothing; the page reads the address, and a widget writes to it when it changes.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from app.text import formats
from app.web.query_string import written

PROJECT = "project"  # in the address of every page, where there are several


def text(name: str) -> str:
    """A setting's text; empty where it is not set."""
    return str(st.query_params.get(name, ""))


def several(name: str) -> list[str]:
    """All values of a setting."""
    return list(st.query_params.get_all(name))


def number(name: str) -> float | None:
    """A setting's number; None where it is not set, or is none."""
    try:
        return float(text(name))
    except ValueError:
        return None


def flag(name: str, default: bool) -> bool:
    """Whether a setting is on."""
    return {"true": True, "false": False}.get(text(name), default)


def kept() -> str:
    """What a link to a page of the board ends with, so that it leads into the project that this page shows."""
    project = text(PROJECT)
    return f"&{urlencode({PROJECT: project})}" if project else ""


def widget(name: str, value: Any) -> dict[str, Any]:
    """Keyword arguments of the widget that shows this value of the setting, and changes it in the address."""
    key = f"address {name}"
    st.session_state[key] = value
    return {"key": key, "on_change": _keep, "args": (name, key)}


def menu(label: str, name: str, offered: Sequence[str], chosen: str) -> None:
    """Draw a menu of the setting's values on a button that says which is chosen.

    A browser draws such buttons sooner than select boxes, and loads less for them.
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
    """Take settings out of the address."""
    for name in names:
        st.query_params.pop(name, None)


def _keep(name: str, key: str) -> None:
    value = st.session_state[key]
    if value is None or value in ("", []):
        forget(name)
    else:
        st.query_params[name] = written(value)

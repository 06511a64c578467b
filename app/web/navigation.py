"""Opening another page, or correcting this page's URL, in the browser, as links.js does.

`st.switch_page` first appends the new page's query to the old page's URL, which becomes a separate entry in the
browser's history, so that Back does not return to the page as it was.
"""

from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import uuid4

import streamlit as st

from app.web import url_state

_JS = """
const done = new Set(); // components are drawn again when other parts of the page change

export default function ({ data }) {
  if (done.has(data.id)) return;
  done.add(data.id);
  const target = new URL(data.address, location.href);
  const now = new URLSearchParams(location.search);
  for (const name of ["embed", "embed_options"].filter((name) => !target.searchParams.has(name)))
    for (const value of now.getAll(name)) target.searchParams.append(name, value);
  for (const [name, value] of Object.entries(data.set)) target.searchParams.set(name, value);
  const change = data.replace ? "replaceState" : "pushState";
  History.prototype[change].call(history, {}, "", target); // history.pushState is links.js's, for Streamlit
  dispatchEvent(new PopStateEvent("popstate"));
}
"""


def go(address: str, *, project: str = "", replace: bool = False) -> None:
    """Open a page, such as "run?run=5", in this project or in another one.

    With `replace`, Back does not return to this page.
    """
    _change(address, {url_state.PROJECT: project or url_state.text(url_state.PROJECT)}, replace=replace)


def correct(name: str, value: str) -> None:
    """Add a missing setting to this page's URL without a new history entry."""
    _change("", {name: value}, replace=True)


def _change(address: str, settings: dict[str, str], *, replace: bool) -> None:
    given = {name: value for name, value in settings.items() if value}
    _component()(data={"id": uuid4().hex, "address": address, "set": given, "replace": replace}, key="redirect")


@cache
def _component() -> Callable[..., Any]:
    return st.components.v2.component("redirect", js=_JS)

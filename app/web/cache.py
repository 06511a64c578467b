"""Streamlit's cache for queries."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import streamlit as st

P = ParamSpec("P")
R = TypeVar("R")


def streamlit_cache(
    query: Callable[P, R], *, ttl: float, max_entries: int | None, show_spinner: str | bool
) -> Callable[P, R]:
    """The query cached by `st.cache_data`, which gives each caller a copy."""
    return st.cache_data(ttl=ttl, max_entries=max_entries, show_spinner=show_spinner)(query)

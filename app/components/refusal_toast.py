"""Toasts for refused actions."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.actions.actor import NotAllowed
from app.text import formats


@contextmanager
def told(*expected: type[Exception]) -> Iterator[None]:
    """Wrap a button's action: a refusal, or another `expected` exception, becomes a toast with the reason."""
    kinds: tuple[type[Exception], ...] = (NotAllowed, *expected)
    try:
        yield
    except kinds as refusal:
        st.toast(formats.plain(str(refusal)), icon=":material/block:")

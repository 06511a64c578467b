"""What a page says where an action is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.actions.actor import NotAllowed
from app.text import formats


@contextmanager
def told(*expected: type[Exception]) -> Iterator[None]:
    """Around what a button does: a refusal, or another exception that is `expected`, becomes a toast that says why."""
    kinds: tuple[type[Exception], ...] = (NotAllowed, *expected)
    try:
        yield
    except kinds as refusal:
        st.toast(formats.plain(str(refusal)), icon=":material/block:")

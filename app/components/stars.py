"""The user's stars: read for what a page shows, and set by a click."""

import streamlit as st

from app.actions import runs
from core.store import favourites
from core.store.engine import read_session


@st.cache_data(ttl=10, show_spinner=False)
def load_stars(user_id: int, run_ids: tuple[int, ...]) -> set[int]:
    """Which of these runs bear the user's star."""
    with read_session() as s:
        return favourites.starred(s, user_id, run_ids)


def set_stars(user_id: int, run_ids: list[int], *, starred: bool) -> int:
    """Give or take stars, and read them anew; returns for how many runs."""
    changed = (runs.star if starred else runs.unstar)(user_id, run_ids)
    load_stars.clear()
    return changed

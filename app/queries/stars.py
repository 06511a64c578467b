"""Queries of the user's stars."""

from app.queries.cache import cached
from core.store import favourites
from core.store.engine import read_session


@cached(ttl=10)
def load_stars(user_id: int, run_ids: tuple[int, ...]) -> set[int]:
    """Which of these runs the user has starred."""
    with read_session() as s:
        return favourites.find_starred(s, user_id, run_ids)

"""Queries of stages by number."""

from app.queries.cache import SLOW, cached
from core.store import stages
from core.store.engine import read_session


@cached(ttl=SLOW)
def load_keys(stage_ids: tuple[int, ...]) -> dict[int, str]:
    """Keys of stages by their ids."""
    with read_session() as s:
        return stages.list_keys(s, stage_ids)

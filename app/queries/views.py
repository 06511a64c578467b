"""Queries of saved views."""

from typing import Any

from app.queries.cache import cached
from core.store import views
from core.store.engine import read_session

LIVE = 10  # seconds: others share theirs


@cached(ttl=LIVE)
def load_views(project_id: int, user_id: int) -> list[dict[str, Any]]:
    """The user's own views and those shared with the project, by name."""
    with read_session() as s:
        return [row._asdict() for row in views.list_views(s, project_id, user_id)]


def read_view(view_id: int, project_id: int, user_id: int) -> dict[str, Any] | None:
    """A view of the project that the user may see, uncached."""
    with read_session() as s:
        found = [row._asdict() for row in views.list_views(s, project_id, user_id)]
    return next((view for view in found if view["id"] == view_id), None)


def forget_views() -> None:
    """Clear cached results after the user's own action."""
    load_views.clear()

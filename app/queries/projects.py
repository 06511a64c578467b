"""Queries of projects and their members."""

from app.queries.cache import cached
from core.store import users
from core.store.engine import read_session
from core.store.models import Role


@cached(ttl=10)
def load_projects(user_id: int) -> tuple[list[tuple[int, str, Role]], bool]:
    """(id, name, the user's role) of each project that the user may see, and whether there are several at all."""
    with read_session() as s:
        mine = [(row.id, row.name, row.role) for row in users.list_projects(s, user_id)]
        return mine, users.count_projects(s) > 1


@cached(ttl=10)
def load_members(project_id: int) -> list[tuple[int, str, Role | None]]:
    """(id, name, role in the project or None) of every user."""
    with read_session() as s:
        return [(row.id, row.name, row.role) for row in users.list_members(s, project_id)]

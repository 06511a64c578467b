"""What pages read. The only place in app/ that opens a read session.

Every function is cached for a time that suits it and returns plain data (dicts, lists, data frames), never
rows bound to a session. Filter outside the cache. What a page must see right after the user's own action
is cleared by `app/actions.py`.
"""

from typing import Any

import streamlit as st
from sqlalchemy import select

from core.catalogue import Catalogue, built_in
from core.store import users
from core.store.engine import read_session
from core.store.models import Role, Run, Technique

LIVE = 2  # seconds: what changes while a run executes
SLOW = 30  # seconds: what changes when someone acts or a worker starts


@st.cache_data(ttl=10, show_spinner=False)
def load_projects(user_id: int) -> list[tuple[int, str, Role]]:
    """(id, name, the user's role) of each project that the user may see."""
    with read_session() as s:
        return [(row.id, row.name, row.role) for row in users.list_projects(s, user_id)]


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_catalogue() -> Catalogue:
    """Techniques, models and tasks: the built-in ones and what workers published."""
    with read_session() as s:
        published = s.execute(select(Technique.kind, Technique.name, Technique.entry)).all()
    return built_in().merged((kind, name, entry) for kind, name, entry in published)


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_spec(run_id: int, project_id: int) -> dict[str, Any] | None:
    """The spec of a run of this project, None where there is no such run."""
    with read_session() as s:
        return s.scalar(select(Run.spec).where(Run.id == run_id, Run.project_id == project_id))

"""Who is using the page, and in which project with which role.

With SLIMBOARD_AUTH=none everyone is the user "local". With oidc, Streamlit signs the user in (its
secrets.toml names the provider); roles are ours, in SQL, and `app/actions.py` checks them at every change.
"""

from dataclasses import dataclass

import streamlit as st

from app import data
from core.settings import settings
from core.store import users
from core.store.engine import session
from core.store.models import Role


@dataclass(frozen=True)
class User:
    """Who is signed in."""

    id: int
    name: str


@dataclass(frozen=True)
class Project:
    """A project and the user's role in it."""

    id: int
    name: str
    role: Role

    @property
    def may_submit(self) -> bool:
        """Viewers only look."""
        return self.role in (Role.MEMBER, Role.OWNER)


def user() -> User:
    """The signed-in user; ends the page with the sign-in button where nobody is."""
    name = users.LOCAL_USER if settings().auth == "none" else _signed_in_name()
    known: User | None = st.session_state.get("_user")
    if known is None or known.name != name:
        with session() as s:
            known = User(users.enrol(s, name).id, name)
        st.session_state["_user"] = known
    return known


def project() -> Project:
    """The project that the page shows; ends the page where the user has a role in none."""
    projects = _projects(user().id)
    if not projects:
        st.title("No access yet")
        st.info(f"You are signed in as {user().name}. Ask an owner to give you a role on the System page.")
        st.stop()
    chosen = st.session_state.get("project_id")
    return next((p for p in projects if p.id == chosen), projects[0])


def choose_project() -> None:
    """The sidebar's project and user, drawn by main.py; silent on a single-user installation."""
    projects = {p.id: p.name for p in _projects(user().id)}
    if len(projects) > 1:
        st.sidebar.selectbox("Project", list(projects), format_func=lambda i: projects[i], key="project_id")
    if settings().auth != "none":
        st.sidebar.caption(user().name)
        st.sidebar.button("Sign out", on_click=st.logout)


def _signed_in_name() -> str:
    if not st.user.is_logged_in:
        st.title("Slimboard")
        st.button("Sign in", type="primary", on_click=st.login)
        st.stop()
    name = st.user.get("email") or st.user.get("sub")
    return str(name)


def _projects(user_id: int) -> list[Project]:
    return [Project(*row) for row in data.load_projects(user_id)]

"""The user of a page, with project and role.

If there are several projects, each page's URL names its project, so that a shared link shows the same to others. With
SLIMBOARD_AUTH=none everyone is the user "local". With oidc, Streamlit signs the user in (the provider is configured in
its secrets.toml); roles are stored in SQL, and every action of `app/actions` checks them.
"""

import streamlit as st

from app.actions.actor import Actor, ProjectRef, UserRef
from app.queries.projects import load_projects
from app.text import formats
from app.web import navigation, url_state
from core.settings import settings
from core.store import users
from core.store.engine import session
from core.store.models import Role


def require_user() -> UserRef:
    """The signed-in user; stops the page with a sign-in button if there is none."""
    name = users.LOCAL_USER if settings().auth == "none" else _signed_in_name()
    known: UserRef | None = st.session_state.get("_user")
    if known is None or known.name != name:
        with session() as s:
            known = UserRef(users.enrol(s, name).id, name)
        st.session_state["_user"] = known
    return known


def require_actor() -> Actor:
    """The user in the page's project; stops the page if the user has no role in any project."""
    projects, _ = _projects()
    if not projects:
        st.title("No access yet")
        name = require_user().name
        st.info(f"You are signed in as {name} without a role. Ask a project owner to assign one on the System page.")
        st.stop()
    refused = st.session_state.get("_refused_project")
    if refused is not None:
        _show_refused(refused, projects)
        st.stop()
    chosen = st.session_state.get("_project")
    project, role = next(((p, role) for p, role in projects if p.name == chosen), projects[0])
    return Actor(require_user(), project, role)


def choose_project() -> None:
    """Project and user in the sidebar, drawn by main.py; nothing on a single-user installation."""
    projects, several = _projects()
    names, asked = [project.name for project, _ in projects], url_state.text(url_state.PROJECT)
    refused = bool(asked) and asked not in names
    st.session_state["_refused_project"] = asked if refused else None
    if names and several and not refused:
        _show_choice(names, asked)
    if settings().auth != "none":
        st.sidebar.caption(require_user().name)
        st.sidebar.button("Sign out", on_click=st.logout)


def _show_choice(names: list[str], asked: str) -> None:
    """The choice of a project; a URL without one is corrected to the project shown."""
    before = st.session_state.get("_project")
    shown = asked or (before if before in names else names[0])
    st.session_state.setdefault(url_state.PROJECT, shown)
    chosen = st.sidebar.selectbox(
        "Project", names, index=None, required=True, key=url_state.PROJECT, bind="query-params"
    )
    st.session_state["_project"] = chosen or shown
    if not asked:
        navigation.correct(url_state.PROJECT, st.session_state["_project"])


def _show_refused(name: str, projects: list[tuple[ProjectRef, Role]]) -> None:
    """A message that the user has no role in the URL's project, with links to their own projects."""
    st.title("No access")
    st.info(f"The project {formats.plain(name)} does not exist, or you have no role in it. Your projects are below.")
    for own, _ in projects:
        if st.button(formats.plain(own.name), icon=":material/arrow_forward:", key=f"go to project {own.id}"):
            navigation.go("./", project=own.name)


def _signed_in_name() -> str:
    if not st.user.is_logged_in:
        st.title("Slimboard")
        st.button("Sign in", type="primary", on_click=st.login)
        st.stop()
    name = st.user.get("email") or st.user.get("sub")
    return str(name)


def _projects() -> tuple[list[tuple[ProjectRef, Role]], bool]:
    """The user's projects and roles, and whether the installation has several projects."""
    mine, several = load_projects(require_user().id)
    return [(ProjectRef(project_id, name), role) for project_id, name, role in mine], several

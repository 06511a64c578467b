"""The menu of a page's saved views."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.actions import views
from app.actions.actor import Actor
from app.components import refusal_toast
from app.queries.views import forget_views, load_views
from app.text import formats
from app.web.query_string import State, query_of
from core.store.models import Role
from core.store.views import NameTakenError

LONGEST_NAME = 100


@st.fragment
def show(page: str, state: State, actor: Actor) -> None:
    """The menu of a page's saved views; `state` is the page's URL state."""
    menu = st.popover("Views", icon=":material/bookmarks:", key=f"views of {page}", on_change="rerun")
    if not menu.open:
        return  # its widgets take time to draw
    with menu:
        found = [view for view in load_views(actor.project.id, actor.user.id) if view["page"] == page]
        if not found:
            st.caption("No saved views of this page yet. A view stores its filters, limits and axes under a name.")
        for view in found:
            _show_view(view, actor)
        _show_form(page, state, actor)


def _show_form(page: str, state: State, actor: Actor) -> None:
    key = f"new view of {page}"

    def save() -> None:
        if st.session_state[key].strip():
            _act(views.save_view, actor, page, st.session_state[key], query_of(state))

    with st.form(f"save a view of {page}", border=False, clear_on_submit=True):
        st.text_input("Save the current view as", key=key, max_chars=LONGEST_NAME, placeholder="below 1 MB")
        st.form_submit_button("Save", type="primary", width="stretch", on_click=save)


def _show_view(view: dict[str, Any], actor: Actor) -> None:
    """A view's row: a link to it, and its owner's buttons."""
    own = view["owner_id"] == actor.user.id
    mine = own or (view["shared"] and actor.role == Role.OWNER)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.session_state.get("renamed view") == view["id"]:
            _show_name(view, actor)
            return
        whose = "" if own else f" :small[:gray[{formats.plain(view['owner'])}]]"
        st.page_link(
            "screens/view/page.py",
            label=formats.plain(view["name"]) + whose,
            icon=":material/group:" if view["shared"] else ":material/bookmark:",
            query_params={"view": str(view["id"])},
            width="stretch",
        )
        if mine:
            _show_buttons(view, actor)


def _show_buttons(view: dict[str, Any], actor: Actor) -> None:
    view_id, shared = view["id"], view["shared"]
    _button(
        f"share {view_id}",
        "lock" if shared else "group_add",
        "Make private" if shared else "Share with the project",
        lambda: _act(views.share_view, actor, view_id, not shared),
        disabled=not actor.may_submit,
    )
    _button(f"rename {view_id}", "edit", "Rename", lambda: st.session_state.update({"renamed view": view_id}))
    _button(f"delete {view_id}", "delete", "Delete", lambda: _act(views.delete_view, actor, view_id))


def _button(key: str, icon: str, words: str, act: Callable[[], None], *, disabled: bool = False) -> None:
    st.button(
        "", icon=f":material/{icon}:", help=words, key=f"view.{key}", on_click=act, disabled=disabled, type="tertiary"
    )


def _show_name(view: dict[str, Any], actor: Actor) -> None:
    key = f"name of view {view['id']}"

    def rename() -> None:
        st.session_state.pop("renamed view")
        if st.session_state[key].strip():
            _act(views.rename_view, actor, view["id"], st.session_state[key])

    st.text_input(
        "New name", view["name"], key=key, max_chars=LONGEST_NAME, label_visibility="collapsed", on_change=rename
    )


def _act(change: Callable[..., Any], *arguments: Any) -> None:
    """Perform a button's action, or show why it is refused; then reload."""
    with refusal_toast.told(NameTakenError):
        change(*arguments)
    forget_views()

"""Saving, sharing and deleting views."""

from sqlalchemy.orm import Session

from app.actions.actor import Actor, NotAllowed, require_member, require_visible
from core.store import users, views
from core.store.engine import session
from core.store.models import Role, SavedView


def save_view(actor: Actor, page: str, name: str, query: str) -> int:
    """Save a page's query under a name and return the view's number; every user with a role in the project may."""
    with session() as s:
        require_visible(s, actor, actor.project.id)
        view = views.save_view(
            s, project_id=actor.project.id, owner_id=actor.user.id, page=page, name=_view_name(name), query=query
        )
        return int(view.id)


def rename_view(actor: Actor, view_id: int, name: str) -> None:
    """Rename a view; raises NameTakenError if its owner has another one with that name on the page."""
    with session() as s:
        views.rename_view(s, _view(s, actor, view_id, "rename"), _view_name(name))


def share_view(actor: Actor, view_id: int, shared: bool) -> None:
    """Show a view to the whole project, or to its owner only; members may share theirs."""
    with session() as s:
        view = _view(s, actor, view_id, "share")
        require_member(s, actor, view.project_id, "share a view")
        views.share_view(s, view, shared=shared)


def delete_view(actor: Actor, view_id: int) -> None:
    """Delete a view."""
    with session() as s:
        views.delete_view(s, _view(s, actor, view_id, "delete"))


def _view_name(name: str) -> str:
    return " ".join(name.split())[:100]


def _view(s: Session, actor: Actor, view_id: int, what: str) -> SavedView:
    """The view, the actor's own, or a shared one of a project that the actor owns."""
    view = views.find_view(s, view_id)
    role = view and users.find_role(s, actor.user.id, view.project_id)
    if view is None or role is None or not (view.owner_id == actor.user.id or view.shared):
        raise NotAllowed("This view does not exist here.")
    if view.owner_id != actor.user.id and role != Role.OWNER:
        raise NotAllowed(f"This view belongs to someone else. Only they or an owner of the project can {what} it.")
    return view

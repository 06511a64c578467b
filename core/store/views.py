"""Saved views: the state of a page under a name. The caller owns the session and its commit."""

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.store.models import SavedView, User
from core.store.rows import Rows


class NameTakenError(ValueError):
    """The user has another view of this name on the same page."""


def save_view(session: Session, *, project_id: int, owner_id: int, page: str, name: str, query: str) -> SavedView:
    """Save a page's query under a name; replaces the user's own view of that name on that page."""
    same = (
        SavedView.project_id == project_id,
        SavedView.owner_id == owner_id,
        SavedView.page == page,
        SavedView.name == name,
    )
    view = session.scalars(select(SavedView).where(*same)).one_or_none()
    if view is None:
        view = SavedView(project_id=project_id, owner_id=owner_id, page=page, name=name, query=query)
        session.add(view)
    view.query = query
    session.flush()
    return view


def find_view(session: Session, view_id: int) -> SavedView | None:
    """The view, None if there is none."""
    return session.get(SavedView, view_id, populate_existing=True)


def list_views(session: Session, project_id: int, user_id: int, page: str | None = None) -> Rows:
    """A user's own views and those shared with the project, by name: id, page, name, query, shared, owner_id, owner."""
    columns = (SavedView.id, SavedView.page, SavedView.name, SavedView.query, SavedView.shared, SavedView.owner_id)
    query = (
        select(*columns, User.name.label("owner"))
        .join(User, User.id == SavedView.owner_id)
        .where(SavedView.project_id == project_id, or_(SavedView.owner_id == user_id, SavedView.shared))
        .order_by(SavedView.name, SavedView.id)
    )
    return session.execute(query if page is None else query.where(SavedView.page == page)).all()


def rename_view(session: Session, view: SavedView, name: str) -> None:
    """Rename a view; raises NameTakenError if its owner has a view of that name on the page."""
    try:
        with session.begin_nested():
            view.name = name
            session.flush()
    except IntegrityError as error:
        session.refresh(view)
        raise NameTakenError(f"You already have a view “{name}” on this page. Choose another name.") from error


def share_view(session: Session, view: SavedView, *, shared: bool) -> None:
    """Share a view with the project, or make it private."""
    view.shared = shared
    session.flush()


def delete_view(session: Session, view: SavedView) -> None:
    """Delete a view."""
    session.delete(view)
    session.flush()

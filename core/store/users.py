"""Users, projects and roles. The caller owns the session and its commit."""

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.store.models import Membership, Project, Role, User
from core.store.names import LOCAL_USER
from core.store.rows import Rows

__all__ = ["LOCAL_USER"]

DEFAULT_PROJECT = "default"


def enrol(session: Session, name: str) -> User:
    """The user of this name, created if new; the first user of an installation becomes owner of the default project.

    Later users have no role until an owner gives them one, since an identity provider may have any number of users.
    """
    known = session.scalar(select(User).where(User.name == name))
    if known is not None:
        return known
    try:
        with session.begin_nested():
            first = session.scalar(select(func.count()).select_from(Membership)) == 0
            user = User(name=name)
            session.add(user)
            session.flush()
            if first:
                session.add(Membership(user_id=user.id, project_id=_default_project(session).id, role=Role.OWNER))
    except IntegrityError:  # another process enrolled the same user meanwhile
        return session.scalars(select(User).where(User.name == name)).one()
    return user


def _default_project(session: Session) -> Project:
    project = session.scalar(select(Project).where(Project.name == DEFAULT_PROJECT))
    if project is None:
        project = Project(name=DEFAULT_PROJECT)
        session.add(project)
        session.flush()
    return project


def list_projects(session: Session, user_id: int) -> Rows:
    """(id, name, role) of each project that the user has a role in, the oldest first."""
    query = (
        select(Project.id, Project.name, Membership.role)
        .join(Membership, Membership.project_id == Project.id)
        .where(Membership.user_id == user_id)
        .order_by(Project.id)
    )
    return session.execute(query).all()


def count_projects(session: Session) -> int:
    """The number of projects."""
    return session.scalar(select(func.count()).select_from(Project)) or 0


def find_role(session: Session, user_id: int, project_id: int) -> Role | None:
    """The user's role in the project, None if they have none."""
    membership = session.get(Membership, (user_id, project_id))
    return membership.role if membership is not None else None


def list_members(session: Session, project_id: int) -> Rows:
    """(id, name, role in the project or None) of every user, by name."""
    query = (
        select(User.id, User.name, Membership.role)
        .outerjoin(Membership, (Membership.user_id == User.id) & (Membership.project_id == project_id))
        .order_by(User.name)
    )
    return session.execute(query).all()


def set_role(session: Session, user_id: int, project_id: int, role: Role | None) -> None:
    """Give a user a role in a project, or none; the project's last owner cannot be changed (ValueError)."""
    membership = session.get(Membership, (user_id, project_id))
    if membership is not None and membership.role == Role.OWNER and role != Role.OWNER:
        owners = select(func.count()).where(Membership.project_id == project_id, Membership.role == Role.OWNER)
        if session.scalar(owners) == 1:
            raise ValueError("A project needs at least one owner.")
    if role is None:
        if membership is not None:
            session.delete(membership)
    elif membership is None:
        session.add(Membership(user_id=user_id, project_id=project_id, role=role))
    else:
        membership.role = role

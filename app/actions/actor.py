"""The actor of an action: a user in a project, with their role there.

Pages, the command line and any other front end pass an `Actor` to the actions. Its `role` decides what a page
offers; each action reads the role again from the store, because it may have changed since.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.store import users
from core.store.models import Role


class NotAllowed(Exception):
    """The user's role does not permit the action; the message says what is needed."""


@dataclass(frozen=True)
class UserRef:
    """The signed-in user."""

    id: int
    name: str


@dataclass(frozen=True)
class ProjectRef:
    """A team's collection of runs."""

    id: int
    name: str


@dataclass(frozen=True)
class Actor:
    """A user in a project, with the role that they have there."""

    user: UserRef
    project: ProjectRef
    role: Role

    @property
    def may_submit(self) -> bool:
        """Whether the role may submit runs, which viewers may not."""
        return self.role in (Role.MEMBER, Role.OWNER)


def require_member(s: Session, actor: Actor, project_id: int, what: str) -> Role:
    """The actor's role in a project; raises NotAllowed unless they are a member or an owner."""
    role = users.find_role(s, actor.user.id, project_id)
    if role not in (Role.MEMBER, Role.OWNER):
        raise NotAllowed(f"You must be a member of the project to {what}. Ask one of its owners.")
    return role


def require_visible(s: Session, actor: Actor, project_id: int) -> None:
    """Raise NotAllowed where the actor has no role in a project."""
    if users.find_role(s, actor.user.id, project_id) is None:
        raise NotAllowed("This belongs to a project in which you have no role. Ask one of its owners for access.")

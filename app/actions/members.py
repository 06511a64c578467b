"""Assigning roles in a project."""

from app.actions.actor import Actor, NotAllowed
from core.store import users
from core.store.engine import session
from core.store.models import Role


def set_role(actor: Actor, member_id: int, role: Role | None) -> None:
    """Assign a role in the actor's project, or none; owners may. Raises ValueError for the last owner."""
    with session() as s:
        if users.find_role(s, actor.user.id, actor.project.id) != Role.OWNER:
            raise NotAllowed("Only an owner of the project can assign roles.")
        users.set_role(s, member_id, actor.project.id, role)

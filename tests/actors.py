"""Actors as the actions take them, by the numbers of a user and a project in the store."""

from app.actions.actor import Actor, ProjectRef, UserRef
from core.store import models, users
from core.store.engine import read_session


def actor(user_id: int, project_id: int = 1) -> Actor:
    """The user in the project; without a role there, a viewer who finds out when they act."""
    with read_session() as s:
        user, project = s.get_one(models.User, user_id), s.get_one(models.Project, project_id)
        role = users.find_role(s, user_id, project_id) or models.Role.VIEWER
        return Actor(UserRef(user.id, user.name), ProjectRef(project.id, project.name), role)

"""Naming and removing the champion of a device."""

from app.actions.actor import Actor, require_member
from core.store import champions, runs
from core.store.engine import session
from core.store.tradeoffs.filters import Conditions


def crown(actor: Actor, run_id: int, position: int, device: Conditions, note: str) -> None:
    """Make a run's stage the champion of a device; every member may. Raises NotTimedError if it was not timed there."""
    with session() as s:
        project_id = runs.get_run(s, run_id).project_id
        require_member(s, actor, project_id, "name a champion")
        champions.crown(
            s,
            project_id=project_id,
            device=device,
            run_id=run_id,
            position=position,
            user_id=actor.user.id,
            note=note.strip(),
        )


def dethrone(actor: Actor, task_hash: str, device: Conditions, note: str) -> None:
    """Remove the champion of a device; every member may."""
    with session() as s:
        require_member(s, actor, actor.project.id, "remove a champion")
        champions.dethrone(
            s,
            project_id=actor.project.id,
            task_hash=task_hash,
            device=device,
            user_id=actor.user.id,
            note=note.strip(),
        )

"""Adding notes, tags and stars to runs."""

from collections.abc import Callable, Iterable

from sqlalchemy.orm import Session

from app.actions.actor import Actor, require_member, require_visible
from core.store import favourites, runs
from core.store.engine import session


def annotate(actor: Actor, run_id: int, text: str) -> None:
    """Add a note to a run; every member may."""
    with session() as s:
        require_member(s, actor, runs.get_run(s, run_id).project_id, "write a note")
        runs.add_note(s, run_id, actor.user.id, text.strip())


def tag(actor: Actor, run_id: int, name: str) -> None:
    """Tag a run; every member may."""
    with session() as s:
        require_member(s, actor, runs.get_run(s, run_id).project_id, "tag a run")
        runs.add_tag(s, run_id, name.strip())


def untag(actor: Actor, run_id: int, name: str) -> None:
    """Remove a tag from a run; every member may."""
    with session() as s:
        require_member(s, actor, runs.get_run(s, run_id).project_id, "untag a run")
        runs.remove_tag(s, run_id, name)


def star(actor: Actor, run_ids: Iterable[int]) -> int:
    """Star runs; every user who can see a run may. Returns the number of runs."""
    return _mark(actor, run_ids, favourites.star)


def unstar(actor: Actor, run_ids: Iterable[int]) -> int:
    """Remove the user's star from runs. Returns the number of runs."""
    return _mark(actor, run_ids, favourites.unstar)


def _mark(actor: Actor, run_ids: Iterable[int], change: Callable[[Session, int, list[int]], None]) -> int:
    chosen = list(run_ids)
    with session() as s:
        for run_id in chosen:
            require_visible(s, actor, runs.get_run(s, run_id).project_id)
        change(s, actor.user.id, chosen)
    return len(chosen)

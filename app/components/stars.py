"""The user's stars: set by a click, then reloaded."""

from app.actions import annotations
from app.actions.actor import Actor
from app.queries.stars import load_stars


def set_stars(actor: Actor, run_ids: list[int], *, starred: bool) -> int:
    """Star or unstar runs and reload the stars; returns the number of runs."""
    changed = (annotations.star if starred else annotations.unstar)(actor, run_ids)
    load_stars.clear()
    return changed

"""The user's stars: set by a click, and read anew."""

from app.actions import annotations
from app.actions.actor import Actor
from app.queries.stars import load_stars


def set_stars(actor: Actor, run_ids: list[int], *, starred: bool) -> int:
    """Give or take stars, and read them anew; returns for how many runs."""
    changed = (annotations.star if starred else annotations.unstar)(actor, run_ids)
    load_stars.clear()
    return changed

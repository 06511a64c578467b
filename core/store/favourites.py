"""Stars that users give to runs. The caller owns the session and its commit."""

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.store.models import Favourite
from core.store.upsert import upsert


def star(session: Session, user_id: int, run_ids: Iterable[int]) -> None:
    """Star runs; idempotent."""
    upsert(session, Favourite, [{"user_id": user_id, "run_id": run_id} for run_id in run_ids], ("user_id", "run_id"))


def unstar(session: Session, user_id: int, run_ids: Iterable[int]) -> None:
    """Remove the user's stars from runs."""
    session.execute(delete(Favourite).where(Favourite.user_id == user_id, Favourite.run_id.in_(list(run_ids))))


def find_starred(session: Session, user_id: int, run_ids: Iterable[int]) -> set[int]:
    """Which of these runs the user has starred."""
    query = select(Favourite.run_id).where(Favourite.user_id == user_id, Favourite.run_id.in_(list(run_ids)))
    return set(session.scalars(query))

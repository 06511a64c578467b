"""Durations of earlier steps, to estimate the duration of a recipe. The caller owns the session."""

from collections.abc import Iterable
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.store.models import Stage

RECENT = 50


def step_seconds(
    session: Session, model: str, task: str, steps: Iterable[tuple[str, dict[str, Any]]]
) -> list[float | None]:
    """Median seconds of each step's technique on the same model and task sources, None if it never ran.

    A step with a budget (`steps`) is estimated by its seconds per update.
    """
    wanted = list(steps)
    history = {name: _history(session, model, task, name) for name in {name for name, _ in wanted}}
    return [_estimate(history[name], settings.get("steps")) for name, settings in wanted]


def _history(session: Session, model: str, task: str, technique: str) -> list[tuple[float, int | None]]:
    query = (
        select(Stage.seconds, Stage.settings)
        .where(Stage.technique == technique, Stage.model == model, Stage.task == task, Stage.seconds > 0)
        .order_by(Stage.id.desc())
        .limit(RECENT)
    )
    return [(row.seconds, row.settings.get("steps")) for row in session.execute(query)]


def _estimate(history: list[tuple[float, int | None]], updates: int | None) -> float | None:
    if updates is not None:
        rates = [seconds / done for seconds, done in history if done]
        if rates:
            return median(rates) * updates
    return median(seconds for seconds, _ in history) if history else None

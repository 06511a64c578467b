"""Removing weights that are no longer needed; the stages' results stay."""

import time
from collections.abc import Sequence

from app.actions.artifacts import keep_shown
from app.queries import artifacts
from core.store import retention
from core.store.engine import read_session, session
from core.store.retention import Removable

DAY = 86_400.0


class RunsExecute(Exception):
    """Weights are not removed while runs execute, because any run may read any artifact."""


def find(days: float, *, last_too: bool) -> list[Removable]:
    """Removable weights: those of stages of which no run ended in the last `days`."""
    with read_session() as s:
        n_running = retention.count_running(s)
        if n_running:
            raise RunsExecute(n_running)
        return retention.list_removable(s, time.time() - days * DAY, last_too=last_too)


def remove(found: Sequence[Removable]) -> None:
    """Remove the weights of these stages, each after its row, so that no row refers to a missing file."""
    for stage in found:
        keep_shown(stage.key)
        with session() as s:
            retention.forget_artifact(s, stage.stage_id)
        artifacts.store().remove(stage.key)

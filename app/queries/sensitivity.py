"""Queries of stages that were made from a sensitivity table."""

from typing import Any

from app.queries.cache import LIVE, cached
from core.store import followers
from core.store.engine import read_session

TECHNIQUE = "mixed_precision"


@cached(ttl=LIVE)
def load_choices(project_id: int, stage_id: int) -> list[dict[str, Any]]:
    """Measured choices from a sensitivity stage's table: run_id, label, kl on test data, and what the step told."""
    with read_session() as s:
        rows = followers.list_followers(s, project_id, stage_id, TECHNIQUE)
        return [
            {"run_id": row.run_id, "label": row.label, "kl": row.kl, **row.details["allocation"]}
            for row in rows
            if "allocation" in row.details
        ]

"""Removes files of killed processes and abandoned runs when a worker starts. Loads no torch."""

import time

from core.artifacts.store import open_configured_store
from worker.claim import find_checkpoints

CHECKPOINT_SECONDS = 30 * 86_400.0  # unchanged for so long: nobody has requeued its run


def sweep() -> int:
    """Remove old drafts of artifacts and checkpoints of abandoned trainings; returns their number."""
    removed = open_configured_store().sweep()
    oldest = time.time() - CHECKPOINT_SECONDS
    for file in find_checkpoints().glob("*.*"):
        if file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)
            removed += 1
    return removed

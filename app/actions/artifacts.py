"""Artifacts that leave this installation, and those that are found damaged on the way."""

import shutil
from collections.abc import Container
from pathlib import Path

from app.queries.artifacts import results, store
from core.bundle import files
from core.integrity import MANIFEST, DamagedArtifact
from core.store import renewal
from core.store.engine import session


def take(key: str, found_by: str) -> Path:
    """The artifact's folder for a copy of it, its files verified; `found_by` names who takes it ("A download").

    Raises FileNotFoundError where it is not there, and DamagedArtifact, after `discard`, where it is damaged.
    """
    try:
        return store().open_verified(key)
    except DamagedArtifact as damaged:
        discard(damaged, found_by)
        raise


def discard(damaged: DamagedArtifact, found_by: str) -> None:
    """Remove a damaged artifact, but for what pages show of it, and tell every run that has used it."""
    keep_shown(damaged.key, damaged.damage)
    place = store() if store().has(damaged.key) else results()
    if place.discard(damaged):
        with session() as s:
            renewal.report_damage(s, damaged, found_by=found_by)


def keep_shown(key: str, damage: Container[str] = ()) -> None:
    """Copy what pages read of a stage, but for damaged files, to where results without weights lie."""
    if not store().has(key) or results().has(key) or MANIFEST in damage:
        return
    folder = store().open(key)
    with results().writing(key) as target:
        for file in files.chosen(folder, weights=False):
            if file.name not in damage:
                shutil.copyfile(file, target / file.name)

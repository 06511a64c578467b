"""Copies of artifacts for downloads, exports and bundles, and the removal of damaged ones."""

import shutil
from collections.abc import Container
from pathlib import Path

from app.queries.artifacts import open_results, store
from core.bundle import files
from core.integrity import MANIFEST, DamagedArtifact
from core.store import renewal
from core.store.engine import session


def take(key: str, found_by: str) -> Path:
    """The artifact's folder for a copy of it, its files verified; `found_by` names who takes it ("A download").

    Raises FileNotFoundError if it is missing, and DamagedArtifact, after `discard`, if it is damaged.
    """
    try:
        return store().open_verified(key)
    except DamagedArtifact as damaged:
        discard(damaged, found_by)
        raise


def discard(damaged: DamagedArtifact, found_by: str) -> None:
    """Remove a damaged artifact, except for what pages show of it, and notify every run that used it."""
    keep_shown(damaged.key, damaged.damage)
    place = store() if store().has(damaged.key) else open_results()
    if place.discard(damaged):
        with session() as s:
            renewal.report_damage(s, damaged, found_by=found_by)


def keep_shown(key: str, damage: Container[str] = ()) -> None:
    """Copy the files of a stage that pages show, except damaged ones, to the results without weights."""
    if not store().has(key) or open_results().has(key) or MANIFEST in damage:
        return
    folder = store().open(key)
    with open_results().writing(key) as target:
        for file in files.list_files(folder, weights=False):
            if file.name not in damage:
                shutil.copyfile(file, target / file.name)

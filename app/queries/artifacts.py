"""Where artifacts lie, for the front end, and what is said of two by what they hold."""

import shutil
from collections.abc import Container
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from core.artifacts.store import ArtifactStore
from core.bundle import files
from core.integrity import EXAMPLES, MANIFEST, DamagedArtifact
from core.measured import Comparison
from core.paired_tests import paired
from core.settings import settings
from core.store import renewal
from core.store.engine import session


def store() -> ArtifactStore:
    """The artifacts' store; those on another host are copied below the home when they are first opened."""
    return ArtifactStore(settings().artifacts_url, settings().home.absolute() / "cache")


def results() -> ArtifactStore:
    """What was imported of stages without their weights: apart, as nothing can be computed from it."""
    return ArtifactStore(f"{settings().artifacts_url}/results", settings().home.absolute() / "cache" / "results")


def open_shown(key: str) -> Path:
    """The folder with what pages show of a stage: its artifact, else what was imported; raises FileNotFoundError."""
    try:
        return store().open(key)
    except FileNotFoundError:
        return results().open(key)


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


def paired_scores(score: str, key: str, base_key: str) -> Comparison | str:
    """How a stage's score differs from the base's on the same examples, or in words why that cannot be said."""
    try:
        examples, base = (load_file(open_shown(k) / EXAMPLES) for k in (key, base_key))
    except FileNotFoundError:
        return "its results by example are not on this host"
    except SafetensorError:
        return "its results by example are damaged; requeue its run"
    try:
        return paired(score, examples, base)
    except ValueError as error:
        return str(error)

"""Bundles of runs: written from this installation's store and artifacts, and imported into them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

from app.actions import runs
from app.queries import artifacts
from core.bundle import insert, write
from core.bundle.errors import BundleError
from core.bundle.read import Bundle
from core.spec.catalogue import Catalogue
from core.store.engine import read_session


def pieces(run_id: int, *, weights: bool = False) -> Iterator[bytes]:
    """A run's bundle, a little at a time; raises BundleError before the first piece where it cannot be made."""
    with read_session() as s:
        source = write.source(s, run_id, artifacts.open_shown, weights=weights)
    return write.pieces(source)


def save(run_id: int, file: Path, *, weights: bool) -> None:
    """Write a run's bundle to a file, which appears whole or not at all."""
    if file.exists():
        raise BundleError(f"{file} is there already. Remove it, or name another file.")
    written = pieces(run_id, weights=weights)
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as target:
            target.writelines(written)
        partial.replace(file)
    except OSError as error:
        raise BundleError(f"{file} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)


def add(user_id: int, project_id: int, bundle: Bundle, catalogue: Catalogue, *, again: bool) -> tuple[int, list[str]]:
    """Import a bundle; returns the new run's number, and labels of stages of which other results were known and stand.

    Files are written before the rows that lead to them, so that no row promises what is not there.
    """
    with read_session() as s:
        runs.require_importable(s, user_id, project_id, bundle, again=again)
        differing = insert.list_differing(s, bundle)
    for key in bundle.names:
        place = artifacts.store() if bundle.has_weights(key) else artifacts.results()
        if not artifacts.store().has(key) and not place.has(key):
            with place.writing(key) as folder:
                bundle.copy_files(key, folder)
    return runs.import_bundle(user_id, project_id, bundle, catalogue, again=again), differing

"""Export and import of runs as bundles."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from app.actions.actor import Actor, require_member
from app.actions.artifacts import discard, take
from app.actions.runs import list_named_runs, needs
from app.queries import artifacts
from core import disk
from core.bundle import insert, write
from core.bundle.errors import BundleError
from core.bundle.read import Bundle
from core.disk import DiskFull
from core.integrity import DamagedArtifact
from core.spec.catalogue import Catalogue
from core.store.engine import read_session, session


def stream_bundle(run_id: int, *, weights: bool = False) -> Iterator[bytes]:
    """A run's bundle in pieces; raises BundleError before the first piece if it cannot be made."""
    try:
        with read_session() as s:
            source = write.collect_source(s, run_id, artifacts.open_shown, weights=weights)
    except DamagedArtifact as damaged:
        discard(damaged, "A bundle")
        text = f"An artifact of run {run_id} is damaged: {damaged}. Requeue the run to compute it again, then retry."
        raise BundleError(text) from damaged
    return write.write_bundle(source)


def save(run_id: int, file: Path, *, weights: bool) -> None:
    """Write a run's bundle to a file, atomically."""
    if file.exists():
        raise BundleError(f"{file} already exists. Remove it, or choose another file.")
    written = stream_bundle(run_id, weights=weights)
    try:
        with disk.replacing(file) as partial, partial.open("wb") as target:
            target.writelines(written)
    except DiskFull as error:
        raise BundleError(str(error)) from error
    except OSError as error:
        raise BundleError(f"Cannot write {file}: {error.strerror}.") from error


def add(actor: Actor, bundle: Bundle, catalogue: Catalogue, *, again: bool) -> tuple[int, list[str]]:
    """Import a bundle; returns the new run's number, and labels of stages whose existing, different results are kept.

    Files are written before the rows that refer to them, so that no row refers to a missing file.
    """
    with read_session() as s:
        _require_importable(s, actor, bundle, again=again)
        differing = insert.list_differing(s, bundle)
    try:
        for key in bundle.names:
            place = artifacts.store() if bundle.has_weights(key) else artifacts.open_results()
            if not _is_here(bundle, key) and not place.has(key):
                with place.writing(key) as folder:
                    bundle.copy_files(key, folder)
    except DiskFull as error:
        raise BundleError(str(error)) from error
    return _add_run(actor, bundle, catalogue, again=again), differing


def _add_run(actor: Actor, bundle: Bundle, catalogue: Catalogue, *, again: bool) -> int:
    """Add a bundle's run as an ended run of the user and return its number.

    Requeuing it needs what its spec needs here. A run that started from another run cannot be requeued, because that
    run's number refers to a different run here.
    """
    needed = [
        *needs(bundle.spec, catalogue),
        *(f"run:{n} of the store that it comes from" for n in list_named_runs(bundle.spec)),
    ]
    with session() as s:
        _require_importable(s, actor, bundle, again=again)
        return insert.add_run(s, bundle, project_id=actor.project.id, owner_id=actor.user.id, needs=needed)


def _require_importable(s: Session, actor: Actor, bundle: Bundle, *, again: bool) -> None:
    """Raise NotAllowed for a viewer, and BundleError if the run is already in the project, unless `again`."""
    require_member(s, actor, actor.project.id, "import a run")
    known = None if again else insert.find_identical(s, bundle, actor.project.id)
    if known is not None:
        raise BundleError(f"This run is already in the project as run {known}. Use --again to import it again.")


def _is_here(bundle: Bundle, key: str) -> bool:
    """Whether a stage's weights are already here; damaged ones are discarded if the bundle has replacements."""
    if not bundle.has_weights(key):
        return artifacts.store().has(key)
    try:
        take(key, "An import")
    except (FileNotFoundError, DamagedArtifact):
        return False
    return True

"""Checks that this host has the same artifacts as the other workers, so that a wrong mount is found before any run."""

import contextlib
import time
import uuid
from collections.abc import Iterable

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from sqlalchemy import Row

from core.settings import settings

MARKER = ".slimboard-artifacts"  # a file with a random name for this set of artifacts


class NotShared(RuntimeError):
    """The artifacts here are not those of the other workers, or cannot be written."""


def read_artifacts_id() -> str:
    """The random name of the artifacts, created by the first worker; raises NotShared if it cannot be written."""
    filesystem, root = url_to_fs(settings().artifacts_url)
    path = f"{root}/{MARKER}"
    try:
        filesystem.makedirs(root, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            filesystem.pipe_file(path, uuid.uuid4().hex.encode(), mode="create")
        return _read(filesystem, path)
    except OSError as error:
        raise NotShared(f"artifacts cannot be written to {settings().artifacts_url}: {error}") from error


def _read(filesystem: AbstractFileSystem, path: str) -> str:
    """The name, once its creator has written it."""
    for _ in range(100):
        found = filesystem.cat_file(path).decode()
        if found:
            return str(found)
        time.sleep(0.05)
    raise NotShared(f"{path} is empty: remove it")


def check_shared(mine: str, workers: Iterable[Row[*tuple[object, ...]]]) -> None:
    """Raise NotShared if a live worker has other artifacts."""
    for worker in workers:
        theirs = worker.hardware.get("artifacts", mine)
        if theirs != mine and not worker.lost and worker.stopped_at is None:
            raise NotShared(
                f"{settings().artifacts_url} does not hold the artifacts of worker {worker.name}. "
                "Give all workers of one store the same SLIMBOARD_ARTIFACTS, on storage that they share."
            )

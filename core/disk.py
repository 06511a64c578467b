"""Writing files that survive a crash, and detecting full disks. Loads no torch."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

FULL_TEXTS = {  # what libraries say that keep no errno
    errno.ENOSPC: ("no space left on device", "database or disk is full"),
    errno.EDQUOT: ("disk quota exceeded",),
}
PARTIAL = ".partial"  # ends the name of a file that is being written
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


class DiskFull(OSError):
    """A disk or quota is full; the message states the place, the free space and the remedy."""

    def __init__(self, folder: Path, code: int):
        super().__init__(code, os.strerror(code), str(folder.absolute()))
        self.free = free_bytes(folder)

    def __str__(self) -> str:
        cause = "The disk quota is used up" if self.errno == errno.EDQUOT else "The disk is full"
        return (
            f"{cause}: writing to {self.filename} failed ({_size(self.free)} free). "
            "Free some space, then requeue the run. `slimboard clean --days 30 --yes` removes the weights of old runs."
        )


def full_code(error: BaseException | None) -> int | None:
    """ENOSPC or EDQUOT if a full disk or quota caused an error, else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_TEXTS:
            return error.errno
        for code, texts in FULL_TEXTS.items():
            if any(text in str(error).lower() for text in texts):
                return code
        error = error.__cause__
    return None


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, or of its nearest existing parent."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raise DiskFull if writing to `folder` inside the context fails for lack of space."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = full_code(error)
        if isinstance(error, DiskFull) or code is None:
            raise
        raise DiskFull(folder, code) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which replaces `path` when it is complete and on disk; removed on failure.

    Until then, others read the old file. Raises DiskFull.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with writing_to(path.parent):
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of entries, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(n_bytes: int) -> str:
    for unit, factor in UNITS:
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"

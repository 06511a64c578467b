"""Writing files that survive a crash, and telling that a disk is full. Loads no torch."""

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
    """A disk or a quota had no room for a file; the message says where, how much is free, and what to do."""

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
    """ENOSPC or EDQUOT where a full disk or a used-up quota is behind an error, else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_TEXTS:
            return error.errno
        for code, texts in FULL_TEXTS.items():
            if any(text in str(error).lower() for text in texts):
                return code
        error = error.__cause__
    return None


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, or of the nearest one above it that exists."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raise DiskFull where what is written to `folder` meanwhile finds no room."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = full_code(error)
        if isinstance(error, DiskFull) or code is None:
            raise
        raise DiskFull(folder, code) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when it is whole and on the disk; removed where that fails.

    Others may read `path` meanwhile and see the old file. Raises DiskFull.
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
    """Wait until all that a folder holds is on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's entries, is on the disk."""
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

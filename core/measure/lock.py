"""One measurement at a time on a host: the measuring process holds a file lock, and other computing processes pause.

The kernel drops the lock when its holder dies. Containers share it if they have the same SLIMBOARD_LOCK.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.settings import settings

POLL_SECONDS = 0.02

Tick = Callable[[], object]  # called while waiting; raises to give up

_held = 0  # measurements of this process that are going on: it does not wait for itself


def lock_file() -> Path:
    """The lock file: SLIMBOARD_LOCK, else one in the system's temporary folder."""
    named = settings().lock
    return Path(named) if named else Path(tempfile.gettempdir()) / "slimboard-measuring.lock"


@contextmanager
def measuring(tick: Tick | None = None) -> Iterator[None]:
    """Hold the host's measuring lock inside the context; `tick` is called while another process has it."""
    global _held
    with _opened() as descriptor:
        _wait(descriptor, fcntl.LOCK_EX, tick)
        _held += 1
        try:
            yield
        finally:
            _held -= 1


def pause_while_measuring(tick: Tick | None = None) -> None:
    """Return as soon as no other process measures. Cheap enough for every training update."""
    if _held:
        return
    with _opened() as descriptor:
        _wait(descriptor, fcntl.LOCK_SH, tick)


def _wait(descriptor: int, operation: int, tick: Tick | None) -> None:
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if tick is not None:
                tick()
            time.sleep(POLL_SECONDS)
        else:
            return


@contextmanager
def _opened() -> Iterator[int]:
    """The lock file, readable by every user; closing it drops the lock."""
    path = lock_file()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""Classifies failures by the exception's class and text, or by how the process ended. Loads no torch."""

import errno
import signal
import tempfile
from pathlib import Path

import sqlalchemy.exc

from core import disk
from core.errors import SpecError
from core.fresh_process import describe_exit
from core.settings import settings
from core.store.models import FailureClass
from worker.claim import find_checkpoints

OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
NETWORK_ERRORS = {  # of the libraries that fetch models and data, named so that they need not be loaded
    ("httpx", "TransportError"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("huggingface_hub", "HfHubHTTPError"),
}
HOST_ERRORS = {errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE, errno.ENFILE}


def classify(error: BaseException) -> FailureClass:
    """The class of a failure with an exception."""
    if isinstance(error, SpecError):
        return FailureClass.BAD_SPEC
    if is_out_of_memory(error):
        return FailureClass.OUT_OF_MEMORY
    if is_infrastructure(error):
        return FailureClass.INFRASTRUCTURE
    return FailureClass.TECHNIQUE


def explain(error: BaseException) -> str:
    """The message of a failure: the error's own, or for a full disk its place, free space and remedy."""
    code = disk.full_code(error)
    if code is None or isinstance(error, disk.DiskFull):
        return str(error).strip() or type(error).__name__
    named = error.filename if isinstance(error, OSError) else None
    folders = [settings().home, find_checkpoints(), Path(tempfile.gettempdir())]
    place = Path(named).parent if isinstance(named, str) else min(folders, key=disk.free_bytes)
    return str(disk.DiskFull(place, code))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a GPU (torch reports it only in its message)."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY_TEXTS)
    )


def is_infrastructure(error: BaseException) -> bool:
    """Whether store, network or disk failed, so that another attempt may succeed."""
    if disk.full_code(error) is not None:
        return True
    if isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, ConnectionError)):
        return True
    if any((c.__module__.partition(".")[0], c.__name__) in NETWORK_ERRORS for c in type(error).__mro__):
        return True
    return isinstance(error, OSError) and error.errno in HOST_ERRORS


def classify_exit(exit_code: int, ooms_before: int) -> tuple[FailureClass, str]:
    """Class and message for a process that ended without a result."""
    killed = exit_code == -signal.SIGKILL
    if killed and count_oom_kills() > ooms_before:
        return FailureClass.OUT_OF_MEMORY, "the operating system killed its process because memory ran out"
    return FailureClass.KILLED if killed else FailureClass.TECHNIQUE, f"its process {describe_exit(exit_code)}"


def count_oom_kills() -> int:
    """Number of processes that the kernel's OOM killer has ended, here and in this container; 0 if unknown."""
    found = 0
    for file in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        if file.exists():
            for line in file.read_text().splitlines():
                name, _, count = line.partition(" ")
                found += int(count) if name == "oom_kill" else 0
    return found

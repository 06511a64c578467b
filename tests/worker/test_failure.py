import errno
import re
import signal

import pytest
import sqlalchemy.exc
from safetensors import SafetensorError

from core.errors import SpecError, TechniqueFailure
from core.store.models import FailureClass
from worker import failure


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SpecError.of("n", 5, "is too much", "Take 2."), FailureClass.BAD_SPEC),
        (MemoryError(), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), FailureClass.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), FailureClass.INFRASTRUCTURE),
        (ConnectionResetError(), FailureClass.INFRASTRUCTURE),
        (
            sqlalchemy.exc.OperationalError("", {}, Exception("server gone")),
            FailureClass.INFRASTRUCTURE,
        ),
        (FileNotFoundError(errno.ENOENT, "no such file"), FailureClass.TECHNIQUE),
        (TechniqueFailure("the loss is not finite"), FailureClass.TECHNIQUE),
        (ValueError("out of memory of the reader"), FailureClass.TECHNIQUE),
    ],
)
def test_class_of_an_exception(error, expected):
    assert failure.classify(error) == expected


def test_network_errors_are_known_by_name(monkeypatch):
    class TransportError(Exception):
        pass

    TransportError.__module__ = "httpx._exceptions"
    assert failure.classify(type("ConnectError", (TransportError,), {})()) == FailureClass.INFRASTRUCTURE


def test_class_of_a_death(monkeypatch):
    monkeypatch.setattr(failure, "count_oom_kills", lambda: 7)
    assert failure.classify_exit(-signal.SIGKILL, 6)[0] == FailureClass.OUT_OF_MEMORY
    assert failure.classify_exit(-signal.SIGKILL, 7)[0] == FailureClass.KILLED
    assert failure.classify_exit(-signal.SIGSEGV, 7) == (FailureClass.TECHNIQUE, "its process crashed (SIGSEGV)")
    assert failure.classify_exit(3, 7)[0] == FailureClass.TECHNIQUE


FULL = "The disk is full"


def wrapped(cause: BaseException) -> BaseException:
    error = RuntimeError("the cache could not be written")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk quota is used up"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), FULL),
        (sqlalchemy.exc.OperationalError("", {}, Exception("database or disk is full")), FULL),
        (wrapped(OSError(errno.ENOSPC, "No space left on device")), FULL),
    ],
)
def test_a_full_disk_is_known_however_it_is_told(error, what):
    assert failure.classify(error) == FailureClass.INFRASTRUCTURE
    assert re.match(rf"{what}: writing to /.* failed \(.* free\)\. ", failure.explain(error))


def test_a_full_disk_is_told_with_the_folder_that_the_error_names(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "file"))
    assert f"writing to {tmp_path} failed" in failure.explain(error)
    assert failure.explain(ValueError(" too much ")) == "too much" and failure.explain(KeyError()) == "KeyError"

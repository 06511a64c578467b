"""Fresh processes for runs: forked from a server that has imported torch and us, nothing of CUDA.

A child is a session of its own, the first to go when memory is short, and ends when its supervisor does.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

PRELOADED = ["core.engine.pipeline", "worker.job"]
OOM_SCORE = 800  # of -1000..1000: the kernel ends the run before the worker


Pipe: TypeAlias = "Connection[Any, Any]"  # one end of it


class Child(NamedTuple):
    """A started process, what it sends back, its output, and the pipe whose closing ends it."""

    process: Any  # multiprocessing.Process of whichever start method
    answers: Pipe
    output: int  # file descriptor to read
    lifeline: Pipe

    @property
    def pid(self) -> int:
        """The process's id, which is also that of its group."""
        return int(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)  # where it was ended before it led its group

    def close(self) -> None:
        """End what is left, and give the descriptors back."""
        self.kill()
        self.process.join()
        self.process.close()
        self.answers.close()
        self.lifeline.close()
        os.close(self.output)


def warm_up() -> None:
    """Start the server, so that the first run need not wait for its imports."""
    _context()
    if sys.platform == "linux":
        forkserver.ensure_running()


def start(function: str, *args: Any) -> Child:
    """Run "module:function" in a fresh process; its answer is sent as (kind, value) over `answers`.

    Kinds are "value", and "error" with (class, text, traceback).
    """
    context = _context()
    answers, sender = context.Pipe(duplex=False)
    held, lifeline = context.Pipe(duplex=False)
    output, written = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(sender, held, written, function, args))
    process.start()
    for end in (sender, held, written):
        end.close()
    return Child(process, answers, os.dup(output.fileno()), lifeline)


def answer(function: str, *args: Any, timeout: float) -> Any:
    """What "module:function" returns in a fresh process.

    Raises ChildError where it raised or died, TimeoutError where it took too long.
    """
    child = start(function, *args)
    try:
        if not wait([child.answers, child.process.sentinel], timeout):
            raise TimeoutError(f"{function} did not answer within {timeout:g} s")
        if not child.answers.poll():
            raise ChildError(f"{function} died", "")
        kind, value = child.answers.recv()
        if kind == "error":
            raise ChildError(f"{value[0]}: {value[1]}", value[2])
        return value
    except EOFError as error:
        raise ChildError(f"{function} died", "") from error
    finally:
        child.close()


class ChildError(RuntimeError):
    """A function in a fresh process raised, or its process died; `trace` is its traceback."""

    def __init__(self, message: str, trace: str):
        super().__init__(message)
        self.trace = trace


def _context() -> Any:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _main(sender: Pipe, held: Pipe, written: Pipe, function: str, args: tuple[Any, ...]) -> None:
    os.setsid()
    _be_first_to_go()
    threading.Thread(target=_end_with_supervisor, args=(held,), daemon=True).start()
    for descriptor in (1, 2):
        os.dup2(written.fileno(), descriptor)
    written.close()
    try:
        module, _, name = function.partition(":")
        sender.send(("value", getattr(importlib.import_module(module), name)(*args)))
    except BaseException as error:  # noqa: BLE001  the supervisor classifies it, whatever it is
        sender.send(("error", (type(error).__qualname__, str(error), traceback.format_exc())))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sender.close()


def _be_first_to_go() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed here
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _end_with_supervisor(held: Pipe) -> None:
    """Nothing is ever sent: the wait ends when the supervisor's end of the pipe closes."""
    wait([held])
    os.killpg(os.getpid(), signal.SIGKILL)

"""Runs a function in a fresh process, returns its result, and reports how the process died if it did.

It inherits no memory, threads or GPU context. On Linux, a server that has only imported some
modules forks the process, which takes tens of milliseconds; elsewhere a new Python starts. The process leads its own
session, is the first to be killed when memory runs out, and ends when its parent does. Loads no torch.
"""

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

Value = TypeVar("Value")
Function: TypeAlias = Callable[..., Value] | str  # importable; "module:name" for one that must not be imported here
Pipe: TypeAlias = "Connection[Any, Any]"  # one end of it

POLL_SECONDS = 0.1
OOM_SCORE = 900  # of -1000..1000: when memory is short the kernel ends it before its parent


class FreshProcessError(RuntimeError):
    """The function raised: the message holds the exception's class and text, a note its traceback."""


class FreshProcessDied(FreshProcessError):
    """The fresh process ended without a result."""


@dataclass(frozen=True)
class Raised:
    """An exception of the function."""

    name: str  # of its class
    text: str
    trace: str

    def error(self) -> FreshProcessError:
        """The exception to raise in this process."""
        error = FreshProcessError(f"{self.name}: {self.text}")
        error.add_note(self.trace)
        return error


@dataclass(frozen=True)
class Returned:
    """What the function returned."""

    value: Any


@dataclass(frozen=True)
class FreshProcess:
    """A started process, the pipe for its result and, if captured, the descriptor of its output."""

    process: Any  # multiprocessing.Process of whichever start method
    answers: Pipe
    output: int | None

    @property
    def pid(self) -> int:
        """The process's id, which is also that of its group."""
        return int(self.process.pid)

    def answer(self) -> Returned | Raised | None:
        """Wait for the result; None if the process died without one."""
        try:
            return cast("Returned | Raised", pickle.loads(self.answers.recv_bytes()))
        except (EOFError, OSError):  # of a pipe that closed before or within the answer
            return None

    def exit_code(self) -> int:
        """Wait for the end of the process; negative: the signal that ended it."""
        self.process.join()
        return int(self.process.exitcode)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process only, not to its children."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)  # it may not lead its group yet

    def close(self) -> None:
        """Kill what is left, and close the descriptors."""
        self.kill()
        self.process.join()
        self.process.close()
        self.answers.close()
        if self.output is not None:
            os.close(self.output)


def warm_up(modules: Sequence[str] = ()) -> None:
    """Start the server with these modules imported, without waiting for it; does nothing if it is running."""
    if sys.platform != "linux":
        return
    server: Any = forkserver._forkserver
    if server._forkserver_pid is None:
        if server._inherited_fds is not None:
            _share(server)
        else:
            server.set_forkserver_preload(list(modules))
    server.ensure_running()


def start(function: Function[Any], *args: Any, capture: bool = False, oom_score: int = OOM_SCORE) -> FreshProcess:
    """Start an importable function in a fresh process; `capture` sends its output into a pipe."""
    warm_up()
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    answers, sender = context.Pipe(duplex=False)
    output, written = context.Pipe(duplex=False) if capture else (None, None)
    process = context.Process(target=_main, args=(sender, written, oom_score, pickle.dumps((_name(function), args))))
    process.start()
    for end in (sender, written):
        if end is not None:
            end.close()
    return FreshProcess(process, answers, None if output is None else os.dup(output.fileno()))


def in_fresh_process(
    function: Function[Value], *args: Any, timeout: float = 600, tick: Callable[[], object] | None = None
) -> Value:
    """The result of an importable function in a fresh process; arguments and result are pickled.

    `tick` is called while waiting and may raise to give up. Raises FreshProcessError if the function raised,
    FreshProcessDied if the process died, TimeoutError after `timeout` seconds; the process is always ended.
    """
    started = start(function, *args)
    try:
        end = time.monotonic() + timeout
        while not wait([started.answers, started.process.sentinel], POLL_SECONDS):
            if tick is not None:
                tick()
            if time.monotonic() > end:
                raise TimeoutError(f"{_name(function)} did not return within {timeout:g} s")
        answer = started.answer()
        if answer is None:
            raise FreshProcessDied(f"a fresh process {describe_exit(started.exit_code())}")
        if isinstance(answer, Raised):
            raise answer.error()
        return cast(Value, answer.value)
    finally:
        started.close()


def describe_exit(exit_code: int) -> str:
    """How a process without a result ended, as a predicate: "crashed (SIGSEGV)"."""
    if exit_code == -signal.SIGKILL:
        return "was killed (SIGKILL), most often because memory ran out"
    if exit_code < 0:
        return f"crashed ({signal.Signals(-exit_code).name})"
    return f"exited with status {exit_code}"


def _name(function: Function[Any]) -> str:
    return function if isinstance(function, str) else f"{function.__module__}:{function.__qualname__}"


def _main(sender: Pipe, written: "Pipe | None", oom_score: int, task: bytes) -> None:
    os.setsid()
    with contextlib.suppress(OSError):  # not Linux, or not allowed here
        Path("/proc/self/oom_score_adj").write_text(str(oom_score))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if written is not None:
        for descriptor in (1, 2):
            os.dup2(written.fileno(), descriptor)
        written.close()
    try:
        name, args = pickle.loads(task)
        module, _, attribute = name.partition(":")
        answer = pickle.dumps(Returned(getattr(importlib.import_module(module), attribute)(*args)))
    except BaseException as error:  # noqa: BLE001  whatever it was, the parent gets it
        answer = pickle.dumps(Raised(type(error).__qualname__, str(error), traceback.format_exc()))
    sender.send_bytes(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    sender.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


def _share(server: Any) -> None:
    """Let a child of the server ask that same server for its own children.

    multiprocessing means to (the child knows the server's address), but starts a second server: it looks for the
    server's process id, which only the first process has.
    """
    server.ensure_running = lambda: None

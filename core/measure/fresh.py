"""Runs a function in a fresh process: nothing of this one's memory, threads or GPU context comes along.

On Linux the process is forked from a server that has only imported torch and us, which takes tens of
milliseconds; elsewhere it is started anew.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, TypeVar, cast

Value = TypeVar("Value")

PRELOADED = ["torch", "safetensors.torch", "core.measure.memory"]
POLL_SECONDS = 0.1
OOM_SCORE = 900  # of -1000..1000: when memory is short the kernel ends it before whoever waits for it
KILLED = "was killed by the system, most often because memory ran out"


class FreshProcessError(RuntimeError):
    """The function raised; the message holds the traceback from the fresh process."""


class FreshProcessDied(FreshProcessError):
    """The fresh process ended without an answer (SIGKILL: out of memory, as a rule)."""


def in_fresh_process(
    function: Callable[..., Value], *args: Any, timeout: float = 600, tick: Callable[[], object] | None = None
) -> Value:
    """What an importable function returns in a fresh process, arguments and value pickled.

    `tick` is called while waiting and may raise to give up. Raises FreshProcessError with the process's
    traceback, FreshProcessDied where it was killed, TimeoutError after `timeout` seconds; the process is
    ended in every case, also when this one dies.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, pickle.dumps((function, args))))
    process.start()
    sender.close()
    try:
        return cast(Value, _received(receiver, process, timeout, tick))
    finally:
        receiver.close()
        process.kill()
        process.join()
        process.close()


def _received(receiver: Any, process: Any, timeout: float, tick: Callable[[], object] | None) -> Any:
    end = time.monotonic() + timeout
    while not connection.wait([receiver, process.sentinel], POLL_SECONDS):
        if tick is not None:
            tick()
        if time.monotonic() > end:
            raise TimeoutError(f"no answer from a fresh process within {timeout:g} s")
    if not receiver.poll():
        process.join()
        raise FreshProcessDied(_death(process.exitcode))
    try:
        kind, content = pickle.loads(receiver.recv_bytes())
    except EOFError:
        process.join()
        raise FreshProcessDied(_death(process.exitcode)) from None
    if kind == "error":
        raise FreshProcessError(content)
    return content


def _death(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return f"a fresh process {KILLED}"
    cause = signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"
    return f"a fresh process ended without an answer: {cause}"


def _answer(sender: Any, task: bytes) -> None:
    _end_with_parent()
    with contextlib.suppress(OSError):  # not Linux, or not allowed here
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    try:
        function, args = pickle.loads(task)
        answer = pickle.dumps(("value", function(*args)))
    except Exception:  # noqa: BLE001  whatever it was, the caller gets it with its traceback
        answer = pickle.dumps(("error", traceback.format_exc()))
    sender.send_bytes(answer)
    sender.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _context() -> Any:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    _share_server()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _share_server() -> None:
    """Let a child of a fork server ask that same server for its own children.

    multiprocessing means to (the child knows the server's address), but starts a second server, which
    would import torch once more: it looks for the server's process id, which only the first process has.
    """
    server: Any = forkserver._forkserver
    if server._inherited_fds is None or server._forkserver_pid is not None:
        return
    server.ensure_running = lambda: None

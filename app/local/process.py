"""A process that `slimboard up` keeps alive: restarted with growing delays, stopped with all its children."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
LONGEST_PAUSE = 60.0  # seconds
SETTLED_AFTER = 60.0  # seconds of uptime after which the count of deaths restarts


class UpError(Exception):
    """`slimboard up` cannot continue; the message gives the reason and a remedy."""


@dataclass
class Service:
    """One process: its command, its log file, and how long it may take to stop."""

    name: str
    command: Sequence[str]
    log: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    grace: float = 10.0  # seconds between SIGTERM and SIGKILL
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0  # in a row, each before SETTLED_AFTER
    restart_at: float = 0.0
    _asked: bool = False
    _descendants: set[psutil.Process] = field(default_factory=set)

    def start(self) -> None:
        """Start the process in its own group, so that Ctrl-C does not reach it directly."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()) if sys.platform == "linux" else None,
            )
        self.started_at = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self.process is not None and self.process.poll() is None

    def keep_alive(self, say: Callable[[str], None]) -> None:
        """Restart the process if it died, after a delay that doubles with each consecutive death."""
        if self.alive or self.process is None:
            return
        now = time.monotonic()
        if not self.restart_at:
            settled = now - self.started_at > SETTLED_AFTER
            self.deaths = 1 if settled else self.deaths + 1
            pause = min(LONGEST_PAUSE, 2.0 ** (self.deaths - 1))
            self.restart_at = now + pause
            self._kill_group()  # remaining children
            how = self.how_it_ended()
            say(f"The {self.name} ended ({how}); restarting in {pause:.0f} s. Log: {self.log}")
        elif now >= self.restart_at:
            self.restart_at = 0.0
            self.start()

    def how_it_ended(self) -> str:
        """The exit status as text."""
        code = self.process.poll() if self.process else None
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit status {code}"

    def last_lines(self, count: int = 15) -> str:
        """The end of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process only, once: it stops its own children."""
        if self.alive and self.process is not None and not self._asked:
            self._asked = True  # a worker would take a second one as "stop immediately"
            self._descendants |= _descendants(self.process.pid)
            self.process.terminate()

    def stop(self, in_a_hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask to stop, wait for `grace`, then SIGKILL the process, its group and every descendant."""
        if self.process is None:
            return
        self.ask_to_stop()
        deadline = time.monotonic() + self.grace
        while self.alive and time.monotonic() < deadline and not in_a_hurry():
            time.sleep(0.05)
        self._kill_group()
        for descendant in self._descendants:
            if descendant.is_running():  # compares creation times, so never another process with the same PID
                descendant.kill()
        self.process.wait()
        psutil.wait_procs(list(self._descendants), timeout=5)

    def _kill_group(self) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # the group is empty


def _descendants(pid: int) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def _end_with(parent: int) -> Callable[[], None]:
    """A function for the child before exec: have the kernel send SIGTERM when `up` itself dies."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask

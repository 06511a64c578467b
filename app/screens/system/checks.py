"""Checks of the installation for the System page. Without Streamlit."""

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
PATIENCE = 1.0  # seconds to wait for Redis
LITTLE_SPACE = 5e9  # bytes free on the disk with the artifacts


@dataclass(frozen=True)
class Queue:
    """The state of the queue in Redis; `error` says why it is unreachable."""

    ping_ms: float | None = None
    version: str = ""
    memory_bytes: int = 0
    messages: Mapping[str, int] = field(default_factory=dict)  # wake-up messages that no worker has taken, by device
    error: str = ""


@dataclass(frozen=True)
class Disk:
    """The disk with the artifacts; sizes are None if the address is not a folder."""

    address: str
    free_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class Trouble:
    """A problem and its remedy."""

    what: str
    remedy: str
    serious: bool = True


def ask_queue(url: str) -> Queue:
    """Ping Redis and count the waiting messages."""
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
    """Free space on the disk with the artifacts."""
    if "://" in address and not address.startswith("file://"):
        return Disk(address)
    folder = Path(address.removeprefix("file://"))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Disk(address, usage.free, usage.total)


def list_versions() -> dict[str, str]:
    """Software versions of the front end."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def find_troubles(
    queue: Queue,
    disk: Disk,
    revision: tuple[str | None, str | None],
    workers: Sequence[Mapping[str, Any]],
    waiting: Mapping[int, str],
) -> list[Trouble]:
    """Problems, the most serious first."""
    found = []
    if revision[0] != revision[1]:
        what = f"The store's schema is {revision[0] or 'empty'}, but this version needs {revision[1]}."
        found.append(Trouble(what, "Run `slimboard migrate`, then restart the front end and the workers."))
    if not any(worker_words.describe_state(worker) == "running" for worker in workers):
        what = "No worker is running, so queued runs cannot start."
        found.append(Trouble(what, "Start one with `slimboard worker --device cpu`."))
    for worker in workers:
        if worker["lost"]:
            what = f"Worker {worker['name']} has not been seen for {formats.duration(worker['age'])}."
            found.append(Trouble(what, "Its run is back in the queue. Check the worker's log and restart it."))
    if disk.free_bytes is not None and disk.free_bytes < LITTLE_SPACE:
        what = f"Only {formats.size(disk.free_bytes)} free on the disk with the artifacts."
        found.append(Trouble(what, "Free some space, or point SLIMBOARD_ARTIFACTS to a larger volume."))
    if queue.error:
        what = f"Redis is unreachable: {queue.error}"
        remedy = "Check SLIMBOARD_REDIS_URL and that Redis is running. No runs are lost: workers also poll the store."
        found.append(Trouble(what, remedy, serious=False))
    for run_id, words in list(waiting.items())[:5]:
        what = f"Run {run_id} is waiting for {words}."
        found.append(Trouble(what, "Start a suitable worker, or clone the run with other settings.", serious=False))
    return found


def describe_schema(found: str | None, expected: str | None) -> str:
    """The store's schema revision, and whether it fits this version."""
    revision = found or "empty"
    return f"{revision} (current)" if found == expected else f"{revision} (this version needs {expected})"

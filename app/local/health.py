"""Whether this container's part of Slimboard works: what docker-compose asks again and again. Loads no torch."""

import socket
import urllib.request
from urllib.error import URLError

from core.settings import settings
from core.store import engine, workers

SEEN_WITHIN = 60.0  # seconds; a worker says every 10 s that it is there


def page_answers() -> bool:
    """Whether the dashboard on this host answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings().port}/_stcore/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError):
        return False


def worker_beats() -> bool:
    """Whether a worker of this host was seen lately."""
    with engine.read_session() as s:
        known = workers.list_workers(s, lost_after=SEEN_WITHIN)
    living = [row.name for row in known if row.stopped_at is None and not row.lost]
    return any(name.startswith(f"{socket.gethostname()}-") for name in living)

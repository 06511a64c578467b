"""Health checks for docker-compose. Loads no torch."""

import socket
import urllib.request
from urllib.error import URLError

from core.settings import settings
from core.store import engine, workers

SEEN_WITHIN = 60.0  # seconds; workers send a heartbeat every 10 s


def check_page() -> bool:
    """Whether the dashboard on this host responds."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings().port}/_stcore/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError):
        return False


def check_worker() -> bool:
    """Whether a worker of this host sent a heartbeat recently."""
    with engine.read_session() as s:
        known = workers.list_workers(s, lost_after=SEEN_WITHIN)
    living = [row.name for row in known if row.stopped_at is None and not row.lost]
    return any(name.startswith(f"{socket.gethostname()}-") for name in living)

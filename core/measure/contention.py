"""How much of the machine other processes used during a measurement."""

import time
from dataclasses import dataclass

import psutil

TOLERATED_SHARE = 0.1  # of the cores; above it a measurement is disturbed
TICK_SECONDS = 0.01  # the system counts time in ticks: a core's count is uncertain by one at each end


@dataclass(frozen=True)
class Contention:
    """CPU use of other processes, as a share of all cores (0..1)."""

    share: float
    disturbed: bool


class ContentionWatch:
    """Measures the CPU use of other processes from its creation until `stop`."""

    def __init__(self) -> None:
        self.cores = psutil.cpu_count() or 1
        self._busy = _busy_seconds()
        self._own = time.process_time()
        self._start = time.monotonic()

    def stop(self) -> Contention:
        """The use since the start."""
        available = max((time.monotonic() - self._start) * self.cores, 1e-9)
        others = max(0.0, _busy_seconds() - self._busy - (time.process_time() - self._own))
        share = min(1.0, others / available)
        uncertain = 2 * TICK_SECONDS * self.cores / available
        return Contention(share, disturbed=share > TOLERATED_SHARE + min(uncertain, 0.2))


def _busy_seconds() -> float:
    """CPU seconds that all processes have used; guests are in `user` already, waiting for disks is not use."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guest)

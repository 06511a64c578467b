import subprocess
import sys
import time
from types import SimpleNamespace

from core.measure import contention
from core.measure.contention import ContentionWatch


class SystemTimes(tuple):
    """user, of which half is a guest's and told again, idle, iowait."""

    def __new__(cls, busy):
        times = super().__new__(cls, (busy, busy / 2, 1000.0 + busy, 100.0 + busy))
        times.guest, times.idle, times.iowait = times[1:]
        return times


def measured(monkeypatch, *, busy, own, seconds):
    """On 4 cores: between two looks all processes use `busy` and this one `own` CPU seconds."""
    busy_times, own_times, clock = iter([0.0, busy]), iter([0.0, own]), iter([0.0, seconds])
    monkeypatch.setattr(contention.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(contention.psutil, "cpu_times", lambda: SystemTimes(next(busy_times)))
    fake = SimpleNamespace(process_time=lambda: next(own_times), monotonic=lambda: next(clock))
    monkeypatch.setattr(contention, "time", fake)
    return ContentionWatch().stop()


def test_own_use_is_no_contention(monkeypatch):
    found = measured(monkeypatch, busy=2.0, own=2.0, seconds=1.0)
    assert (found.share, found.disturbed) == (0.0, False)


def test_what_others_use_is_a_share_of_all_cores(monkeypatch):
    found = measured(monkeypatch, busy=3.0, own=2.0, seconds=1.0)
    assert (found.share, found.disturbed) == (0.25, True)


def test_a_short_look_allows_for_the_systems_coarse_ticks(monkeypatch):
    assert not measured(monkeypatch, busy=0.03, own=0.0, seconds=0.05).disturbed  # 15 % of 0.2 s: three ticks
    assert measured(monkeypatch, busy=0.08, own=0.0, seconds=0.05).disturbed


def test_a_busy_neighbour_is_noticed():
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        watch = ContentionWatch()
        time.sleep(0.5)
        found = watch.stop()
    finally:
        neighbour.kill()
        neighbour.wait()
    assert found.share > 0.2 / watch.cores

import multiprocessing
import os
import signal
import time

import pytest

from core.measure import lock
from core.settings import settings


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_LOCK", str(tmp_path / "folder" / "lock"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def hold_until_told(path, sender, receiver):
    os.environ["SLIMBOARD_LOCK"] = path
    settings.cache_clear()
    with lock.measuring():
        sender.send("held")
        receiver.recv()


@pytest.fixture
def holder():
    """Another process that measures; `send` anything to it and it stops."""
    context = multiprocessing.get_context("forkserver")
    told, tell = context.Pipe(duplex=False)
    heard, say = context.Pipe(duplex=False)
    process = context.Process(target=hold_until_told, args=(os.environ["SLIMBOARD_LOCK"], say, told))
    process.start()
    assert heard.recv() == "held"
    yield process, tell
    process.kill()
    process.join()


class WaitedError(Exception):
    pass


def give_up():
    raise WaitedError


def test_nobody_waits_while_nobody_measures():
    lock.pause_while_measuring(tick=give_up)
    with lock.measuring(tick=give_up):
        pass


def test_others_neither_measure_nor_compute_meanwhile(holder):
    with pytest.raises(WaitedError):
        lock.pause_while_measuring(tick=give_up)
    with pytest.raises(WaitedError), lock.measuring(tick=give_up):
        pass


def test_they_go_on_when_the_measurement_ends(holder):
    _, tell = holder
    ticks = []

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            tell.send("stop")

    lock.pause_while_measuring(tick)
    assert len(ticks) >= 3
    with lock.measuring():
        pass


def test_a_killed_process_leaves_no_lock(holder):
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    lock.pause_while_measuring(tick=give_up)


def test_who_measures_does_not_wait_for_itself():
    with lock.measuring():
        lock.pause_while_measuring(tick=give_up)
    assert lock._held == 0


def test_an_error_inside_releases_the_lock(holder):
    process, tell = holder
    tell.send("stop")
    process.join()
    with pytest.raises(ZeroDivisionError), lock.measuring():
        raise ZeroDivisionError
    assert lock._held == 0
    lock.pause_while_measuring(tick=give_up)


def test_a_check_is_cheap_enough_for_every_step(tmp_path):
    lock.pause_while_measuring()
    start = time.process_time()
    for _ in range(1000):
        lock.pause_while_measuring()
    assert time.process_time() - start < 5  # about 0.01 s; a bound that no slow machine passes by accident

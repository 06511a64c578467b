import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.local.process import Service


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(code: str, **more: object) -> Service:
        made.append(Service("thing", [sys.executable, "-c", code], tmp_path / "log", tmp_path, **more))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.grace = 0
        one.stop()


def test_a_dead_process_is_started_again_after_pauses_that_double(service, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("app.local.process.time.monotonic", lambda: clock[0])
    said: list[str] = []
    thing = service("")
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        thing.process.wait()
        thing.keep_alive(said.append)
        dead = thing.process.pid
        clock[0] += pause - 0.01
        thing.keep_alive(said.append)
        assert thing.process.pid == dead  # not yet
        clock[0] += 0.02
        thing.keep_alive(said.append)
        assert thing.process.pid != dead
        assert f"restarting in {pause} s" in said[-1]
    assert len(said) == 8
    assert "exit status 0" in said[0]


def test_after_a_settled_life_the_pause_is_short_again(service, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("app.local.process.time.monotonic", lambda: clock[0])
    thing = service("")
    thing.deaths = 5
    thing.process.wait()
    clock[0] += 61
    said: list[str] = []
    thing.keep_alive(said.append)
    assert "restarting in 1 s" in said[0]


def test_stop_ends_children_and_those_that_left_the_group(service, tmp_path):
    child = "import time; time.sleep(1000)"
    code = f"""if True:
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", {child!r}])
        subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
        time.sleep(1000)
    """
    thing = service(code)
    parent = psutil.Process(thing.process.pid)
    eventually(lambda: len(parent.children()) == 2)
    family = [parent, *parent.children()]
    thing.stop()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def test_stop_waits_for_a_graceful_end(service, tmp_path):
    code = """if True:
        import pathlib, signal, sys
        def end(*_):
            pathlib.Path("saved").write_text("work")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        pathlib.Path("ready").touch()
        while True: signal.pause()
    """
    thing = service(code, grace=30.0)
    eventually((tmp_path / "ready").exists)
    thing.stop()
    assert (tmp_path / "saved").read_text() == "work"
    assert thing.process.returncode == 0


def test_stop_kills_what_does_not_listen(service, tmp_path):
    code = """if True:
        import pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path("ready").touch()
        time.sleep(1000)
    """
    thing = service(code, grace=0.1)
    eventually((tmp_path / "ready").exists)
    thing.stop()
    assert thing.process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_service_ends_when_its_keeper_is_killed(tmp_path):
    keeper_code = """if True:
        import sys, time
        from pathlib import Path
        from app.local.process import Service
        thing = Service("thing", [sys.executable, "-c", "import time; time.sleep(1000)"], Path("log"), Path("."))
        thing.start()
        Path("pid").write_text(str(thing.process.pid)); Path("pid").rename("written")
        time.sleep(1000)
    """
    keeper = subprocess.Popen([sys.executable, "-c", keeper_code], cwd=tmp_path)
    try:
        eventually((tmp_path / "written").exists)
        orphan = psutil.Process(int((tmp_path / "written").read_text()))
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait()
        eventually(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    finally:
        keeper.kill()
        keeper.wait()


def test_the_log_holds_what_it_said(service):
    thing = service("print('first'); print('last')")
    thing.process.wait()
    assert thing.last_lines(1) == "last"

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pynvml
import pytest

from app.local import redis, stack
from app.local.process import UpError
from core.settings import LONGEST_SOCKET_PATH, Settings
from tests.app.local.test_process import eventually

pytestmark = pytest.mark.timeout(300)


def unused_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_numbers = itertools.count()


class Up:
    """A real `slimboard up` in a home of its own."""

    def __init__(self, home: Path, *arguments: str):
        self.home, self.output = home, home.parent / f"{home.name}-{next(_numbers)}.out"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLIMBOARD_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "up", *arguments],
                env={**environment, "SLIMBOARD_HOME": str(home)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def address(self) -> str:
        return re.findall(r"ready: (\S+)", self.said)[0]

    def wait_until_ready(self) -> "Up":
        eventually(lambda: "is ready" in self.said or self.process.poll() is not None, seconds=120)
        assert "is ready" in self.said, self.said
        return self

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str, home: str = "home") -> Up:
        started.append(Up(tmp_path / home, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.send_signal(signal.SIGINT)
        one.process.wait()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_up_serves_the_page_and_leaves_no_process_behind(up, tmp_path):
    port = unused_port()
    running = up("--port", str(port), "--workers", "0").wait_until_ready()
    assert running.address == f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{running.address}/_stcore/health") as answer:
        assert answer.status == 200
    assert redis.answers(Settings(home=running.home).redis_socket)

    second = up("--port", str(unused_port()))  # the same home
    assert second.process.wait() == 1
    assert f"process {running.process.pid}, {running.address}" in second.said

    other = up("--port", str(port), "--workers", "0", home="other")
    assert other.process.wait() == 1
    assert f"Port {port} on 127.0.0.1 is in use" in other.said
    assert f"--port {port + 1}" in other.said

    family = running.family()
    assert len(family) >= 2
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait() == 0
    assert alive(family) == []
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["home", "other"]


def test_a_killed_worker_and_a_killed_queue_are_started_again(up):
    running = up("--port", str(unused_port()), "--workers", "1").wait_until_ready()

    def says(process: psutil.Process, word: str) -> bool:
        try:
            return any(word in part for part in process.cmdline())
        except psutil.NoSuchProcess:  # it ended meanwhile
            return False

    def named(word: str) -> list[psutil.Process]:
        children = psutil.Process(running.process.pid).children()
        return [p for p in alive(children) if says(p, word)]

    for word, name in (("celery", "CPU worker 0"), ("redis-server", "queue")):
        eventually(lambda word=word: named(word), seconds=60)
        (victim,) = named(word)
        victim.kill()
        eventually(lambda word=word, victim=victim: [p for p in named(word) if p.pid != victim.pid], seconds=60)
        assert f"The {name} ended (signal SIGKILL); restarting in 1 s." in running.said
    eventually(lambda: redis.answers(Settings(home=running.home).redis_socket))

    family = running.family()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait() == 0
    assert alive(family) == []


def test_the_next_free_port_is_taken_when_none_was_asked_for(monkeypatch):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        monkeypatch.setattr(stack, "settings", lambda: Settings(port=first))
        said: list[str] = []
        assert stack.find_port("127.0.0.1", None, said.append) > first
        assert said[0].startswith(f"Port {first} is in use; using ")
        with pytest.raises(UpError, match=f"Port {first} on 127.0.0.1 is in use"):
            stack.find_port("127.0.0.1", first, said.append)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused_with_the_reason(host):
    with pytest.raises(UpError, match=f"{host} is not an address of this machine"):
        stack.find_port(host, 8501, lambda line: None)


def test_a_home_that_is_too_long_for_a_socket_keeps_it_in_a_private_folder(tmp_path):
    short, long = Settings(home=tmp_path / "h"), Settings(home=tmp_path / ("long" * 30))
    assert short.redis_socket == tmp_path / "h" / "redis.sock"
    assert len(str(long.redis_socket)) <= LONGEST_SOCKET_PATH
    assert long.redis_socket == Settings(home=tmp_path / ("long" * 30)).redis_socket  # every process finds it
    assert long.redis_socket != Settings(home=tmp_path / ("long" * 31)).redis_socket
    redis.make_folder(long.redis_socket)
    folder = long.redis_socket.parent
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o755)
        with pytest.raises(UpError, match="Other users have access"):
            redis.make_folder(long.redis_socket)
    finally:
        folder.rmdir()


def test_the_queue_never_forgets_and_never_listens_on_tcp(tmp_path):
    command = redis.make_command(tmp_path / "s", tmp_path)
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--unixsocketperm"] == "700"


@pytest.mark.parametrize(
    ("n_gpus", "visible", "build", "expected"),
    [
        (0, None, "2.13.0", []),
        (2, None, "2.13.0", ["0", "1"]),
        (2, "1", "2.13.0", ["1"]),
        (2, "", "2.13.0", []),
        (2, "-1", "2.13.0", []),
        (1, None, "2.13.0+cpu", []),
    ],
)
def test_each_visible_gpu_has_a_worker(monkeypatch, n_gpus, visible, build, expected):
    def init() -> None:
        if n_gpus == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", init)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: n_gpus)
    monkeypatch.setattr(stack, "version", lambda name: build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    said: list[str] = []
    assert stack.list_cuda_devices(said.append) == expected
    assert bool(said) == (build.endswith("+cpu") and n_gpus > 0)

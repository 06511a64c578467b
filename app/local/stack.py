"""`slimboard up`: store, queue, workers and front end on this machine, until Ctrl-C. Loads no torch."""

import errno
import fcntl
import itertools
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from urllib.error import URLError

import pynvml

from app.local import redis
from app.local.process import Service, UpError
from core.settings import Settings, settings
from core.store import engine

ROOT = Path(__file__).resolve().parents[2]  # of the checkout or image, with .streamlit/config.toml
Say = Callable[[str], None]  # shows a line to the user
START_SECONDS = 120  # for the page to respond; reading libraries from a cold disk is slow
WORKER_GRACE = 75.0  # longer than the worker's own soft shutdown, in which it saves and returns its run


def up(port: int | None, host: str | None, workers: int, on_ready: Callable[[], None] | None, say: Say) -> None:
    """Run everything until a signal, and call `on_ready` once; raises UpError, with a remedy, if it cannot start."""
    chosen = settings()
    home = chosen.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with only_one(home) as announce, Stop() as stop:
        host = host or chosen.host
        given = port if port is not None else chosen.port if os.environ.get("SLIMBOARD_PORT") else None
        port = find_port(host, given, say)
        engine.upgrade(chosen.database_url)
        services: list[Service] = []
        try:
            _start(services, chosen, host, port, workers, stop, say)
            address = f"http://{_reachable(host)}:{port}"
            announce(address)
            if not stop.asked:
                if on_ready is not None:
                    on_ready()
                _greet(address, host, home, services, say)
            while not stop.wait(0.3):
                for service in services:
                    service.keep_alive(say)
        finally:
            _stop(services, stop, say)


def make_front_end_command(host: str, port: int) -> list[str]:
    """The command line of the dashboard."""
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",  # the code does not change under a running server
        "server.maxUploadSize": settings().upload_mb,
        "browser.gatherUsageStats": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "server.py"), *flags]


def find_port(host: str, given: int | None, say: Say) -> int:
    """The port to listen on: the given one, otherwise the first free one from the configured port on."""
    if given is not None:
        if not _is_free(host, given):
            raise UpError(
                f"Port {given} on {host} is in use. Stop the process that listens there, or choose another port: "
                f"slimboard up --port {given + 1}"
            )
        return given
    first = settings().port
    for port in range(first, first + 100):
        if _is_free(host, port):
            if port != first:
                say(f"Port {first} is in use; using {port}.")
            return port
    raise UpError(f"Ports {first} to {first + 99} on {host} are all in use. Choose another one with --port.")


def list_cuda_devices(say: Say) -> list[str]:
    """The CUDA_VISIBLE_DEVICES value of each usable GPU, from the driver, without initializing CUDA."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, no GPU
    try:
        found = [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        found = [device.strip() for device in named.split(",") if device.strip() not in ("", "-1")]
    if found and version("torch").endswith("+cpu"):
        say("This machine has a GPU, but the installed PyTorch is a CPU build, so runs use the CPU.")
        return []
    return found


@contextmanager
def only_one(home: Path) -> Iterator[Say]:
    """Lock the home for this process; yields a function that records the URL."""
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UpError(
                f"Slimboard is already running in {home} ({lock.read().strip() or 'starting'}). "
                "Stop it, or set SLIMBOARD_HOME to another folder."
            ) from None

        def announce(text: str) -> None:
            lock.truncate(0)
            lock.write(f"process {os.getpid()}{text and ', ' + text}")
            lock.flush()

        announce("")
        yield announce
        lock.truncate(0)


@dataclass
class Stop:
    """Whether a signal has asked to stop; a second one stops immediately."""

    signals: int = 0
    _event: threading.Event = field(default_factory=threading.Event)
    _before: dict[int, object] = field(default_factory=dict)

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        self._event.set()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    @property
    def in_a_hurry(self) -> bool:
        """Whether to stop immediately."""
        return self.signals > 1

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds` or until a signal; returns whether to stop."""
        return self._event.wait(seconds)


def _start(
    services: list[Service],
    chosen: Settings,
    host: str,
    port: int,
    workers: int,
    stop: Stop,
    say: Say,
) -> None:
    """Start everything in order of dependency, and append it to `services`."""
    home = chosen.home.absolute()
    environment = _environment(chosen)

    def start(name: str, command: list[str], *, grace: float = 10.0, **more: str) -> Service:
        log = home / "logs" / f"{name.replace(' ', '-')}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        services.append(Service(name, command, log, ROOT, {**environment, **more}, grace))
        services[-1].start()
        return services[-1]

    if not chosen.redis:
        queue_socket = chosen.redis_socket
        redis.make_folder(queue_socket)
        queue = start("queue", redis.make_command(queue_socket, home))
        _wait_for(lambda: redis.answers(queue_socket), queue, stop)
    front_end = start("front end", make_front_end_command(host, port))
    worker = [sys.executable, "-m", "app.cli.main", "worker", "--device"]
    for index, device in enumerate(list_cuda_devices(say)):
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": device}
        start(f"GPU worker {index}", [*worker, "gpu"], grace=WORKER_GRACE, **order)
    for index in range(workers):
        start(f"CPU worker {index}", [*worker, "cpu"], grace=WORKER_GRACE, CUDA_VISIBLE_DEVICES="")
    _wait_for(lambda: _is_healthy(host, port), front_end, stop)


def _environment(chosen: Settings) -> dict[str, str]:
    """The settings for the child processes with absolute paths, as their working folder differs."""
    folders = [str(Path(part).absolute()) for part in chosen.data.split(":") if part]
    environment = {"SLIMBOARD_HOME": str(chosen.home.absolute()), "SLIMBOARD_DATA": ":".join(folders)}
    if chosen.artifacts and "://" not in chosen.artifacts:
        environment["SLIMBOARD_ARTIFACTS"] = str(Path(chosen.artifacts).absolute())
    return environment


def _wait_for(ready: Callable[[], bool], service: Service, stop: Stop) -> None:
    deadline = time.monotonic() + START_SECONDS
    for pause in itertools.chain([0.05] * 20, itertools.repeat(0.2)):
        if stop.asked or ready():
            return
        if not service.alive:
            raise UpError(f"The {service.name} did not start ({service.how_it_ended()}):\n{service.last_lines()}")
        if time.monotonic() > deadline:
            raise UpError(f"The {service.name} is not responding after {START_SECONDS} s:\n{service.last_lines()}")
        stop.wait(pause)


def _stop(services: list[Service], stop: Stop, say: Say) -> None:
    if services:
        say("Stopping. Runs in progress are saved and resume next time. Press Ctrl-C again to stop immediately.")
    for service in services:  # workers and front end at the same time, the queue last
        if service.name != "queue":
            service.ask_to_stop()
    for service in reversed(services):
        service.stop(lambda: stop.in_a_hurry)


def _greet(address: str, host: str, home: Path, services: list[Service], say: Say) -> None:
    workers = sum("worker" in service.name for service in services)
    say(f"Slimboard is ready: {address}")
    say(f"{workers} worker{'' if workers == 1 else 's'}. All data is stored in {home}. Press Ctrl-C to stop.")
    if settings().auth == "none" and not (host.startswith("127.") or host in ("localhost", "::1")):
        say(f"Warning: there is no authentication (SLIMBOARD_AUTH), so anyone who can reach {host} can use Slimboard.")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
        try:
            probe.bind((host, port))
        except PermissionError:
            raise UpError(f"This user may not use port {port}. Choose one from 1024 on.") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            remedy = "Use --host 127.0.0.1, or 0.0.0.0 for all of this machine's addresses."
            raise UpError(f"{host} is not an address of this machine ({error.strerror}). {remedy}") from None
    return True


def _reachable(host: str) -> str:
    """The host to open in a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown


def _is_healthy(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{_reachable(host)}:{port}/_stcore/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False

"""A real front end on a free port, and a Chromium to look at it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.local.stack import ROOT, make_front_end_command
from core.store import engine
from tests import chromium, factories

PATIENCE = 120  # seconds until a server answers, on a busy machine
expect.set_options(timeout=15_000)  # milliseconds until a page shows what it should, on a busy machine
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass(frozen=True)
class Server:
    """A running front end: its address and the store that it shows."""

    url: str
    store_url: str
    home: Path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; tests are skipped where none can be had."""
    path = chromium.find()
    if path is None:
        pytest.skip(chromium.WHY_NOT)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty tab of a desktop's size."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A front end without queue and workers, whose store holds 30 plausible runs."""
    home = tmp_path_factory.mktemp("home")
    store_url = f"sqlite:///{home / 'slimboard.db'}"
    engine.upgrade(store_url)
    with engine.session(store_url) as s:
        factories.fill_store(s, 30)
    port = free_port()
    with started(make_front_end_command("127.0.0.1", port), home, port) as url:
        yield Server(url, store_url, home)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All that `slimboard up` starts: store, queue, worker and front end."""
    home = tmp_path_factory.mktemp("home")
    port = free_port()
    with started([sys.executable, "-m", "app.cli.main", "up", "--port", str(port)], home, port) as url:
        yield Server(url, f"sqlite:///{home / 'slimboard.db'}", home)


@contextmanager
def started(command: list[str], home: Path, port: int) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIMBOARD_")}
    environment |= {"SLIMBOARD_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until(lambda: _answers(url), lambda: f"{process.poll()}: {(home / 'server.log').read_text()}")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait_until(done: Callable[[], bool], why_not: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(why_not())
        time.sleep(0.2)

"""A store of its own for each test of the front end, and no broker."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from app.actions import runs
from core import settings as settings_module
from core.store import engine


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppTest leaves its script as `__main__`, which a fresh process of a later test would then run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An empty, migrated SQLite store below a home of its own; yields the devices that were woken."""
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path))
    for name in ("SLIMBOARD_DATABASE_URL", "SLIMBOARD_REDIS_URL", "SLIMBOARD_ARTIFACTS", "SLIMBOARD_AUTH"):
        monkeypatch.delenv(name, raising=False)
    settings_module.settings.cache_clear()
    st.cache_data.clear()
    woken: list[str] = []
    monkeypatch.setattr(runs, "enqueue", woken.append)
    monkeypatch.setattr(runs, "enqueue_check", lambda spec_hash, device: None)
    engine.upgrade()
    yield woken
    engine.engine().dispose()
    settings_module.settings.cache_clear()
    st.cache_data.clear()

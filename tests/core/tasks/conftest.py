"""A home and a data folder of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Slimboard's home folder; the folder `data` beside it is the one in SLIMBOARD_DATA."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLIMBOARD_DATA", str(tmp_path / "data"))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


@pytest.fixture
def data(home: Path) -> Path:
    """The folder in SLIMBOARD_DATA."""
    return home.parent / "data"

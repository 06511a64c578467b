"""A bundle on disk, from a SQLite store; what it is imported into is SQLite and Postgres."""

from pathlib import Path

import pytest

from core.artifacts.store import ArtifactStore
from core.bundle import write
from core.store import engine
from tests import bundled, factories
from tests.stores import postgres, session, store_url, templates

__all__ = ["postgres", "session", "store_url", "templates"]


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    """The artifacts of the run."""
    store = ArtifactStore(str(tmp_path / "from" / "artifacts"), tmp_path / "cache")
    bundled.keep_files(store)
    return store


@pytest.fixture
def origin(tmp_path: Path) -> str:
    """The store that the run is in, after another run, so that numbers differ elsewhere."""
    url = f"sqlite:///{tmp_path / 'from' / 'store.db'}"
    engine.upgrade(url)
    with engine.session(url) as s:
        factories.submit(s, user="alice", name="another")
        bundled.finished_run(s)
    return url


@pytest.fixture
def bundle(origin: str, artifacts: ArtifactStore, tmp_path: Path) -> Path:
    """The run without its weights."""
    with engine.read_session(origin) as s:
        return bundled.written(tmp_path / "run.zip", write.write_bundle(write.collect_source(s, 2, artifacts.open)))


@pytest.fixture
def heavy(origin: str, artifacts: ArtifactStore, tmp_path: Path) -> Path:
    """The run with its weights."""
    with engine.read_session(origin) as s:
        return bundled.written(
            tmp_path / "heavy.zip", write.write_bundle(write.collect_source(s, 2, artifacts.open, weights=True))
        )

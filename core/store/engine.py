"""Connections to the store: SQLite in WAL mode or Postgres, the same sessions for both."""

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session

from core.settings import settings

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parents[2] / "migrations"
BUSY_SECONDS = 30  # how long a writer waits for another one's transaction in SQLite
UPGRADE_LOCK = 0x511B0A2D  # Postgres advisory lock: one process migrates, the others wait


def engine(url: str | None = None) -> Engine:
    """The engine of a URL (by default that of the settings), one per URL in a process."""
    return _engine(url or settings().database_url)


@contextmanager
def session(url: str | None = None) -> Iterator[Session]:
    """A session that may write: commits at the end, rolls back on an exception.

    In SQLite it takes the write lock at its start, because a reader that starts to write fails immediately.
    """
    with Session(engine(url), expire_on_commit=False) as opened, opened.begin():
        yield opened


@contextmanager
def read_session(url: str | None = None) -> Iterator[Session]:
    """A read-only session: never waits for a writer and never blocks one."""
    with Session(engine(url).execution_options(reads_only=True)) as opened:
        yield opened


def upgrade(url: str | None = None) -> None:
    """Bring the store to the newest schema; several processes may call this concurrently."""
    from alembic import command  # most programs only ask for the revision

    target = engine(url)
    if target.dialect.name == "sqlite":
        Path(str(target.url.database)).parent.mkdir(parents=True, exist_ok=True)
        _set_wal(target)
    with target.begin() as connection:  # SQLite: BEGIN IMMEDIATE, so a second process waits here
        if target.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
        command.upgrade(migrations(connection), "head")


def revision(url: str | None = None) -> tuple[str | None, str | None]:
    """The schema's revision in the store (None: empty) and the one that this program expects.

    It does not use Alembic, whose import is slow: the names of migration files start with their revisions.
    """
    newest = max((file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/*_*.py")), default=None)
    with engine(url).execution_options(reads_only=True).connect() as connection:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return None, newest
        return connection.scalar(text("SELECT version_num FROM alembic_version")), newest


def migrations(connection: Connection | None = None) -> "Config":
    """Alembic's configuration; with a connection, its commands use that one."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


@cache
def _engine(url: str) -> Engine:
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.drivername == "postgresql":  # psycopg 3 is the driver that is installed
        parsed = parsed.set(drivername="postgresql+psycopg")
    return sqlalchemy.create_engine(
        parsed,
        pool_pre_ping=True,  # a restarted server costs one reconnect, no error
        connect_args={"client_encoding": "utf8"},  # a database made in the C locale would hand out bytes
    )


def _sqlite(url: sqlalchemy.URL) -> Engine:
    made = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})
    event.listen(made, "connect", _configure)
    event.listen(made, "begin", _begin)
    return made


def _configure(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a power cut loses commits, never the file
    cursor.execute("PRAGMA cache_size = -65536")  # 64 MiB: the indexes of 100,000 runs
    cursor.execute("PRAGMA mmap_size = 1073741824")
    cursor.execute("PRAGMA temp_store = MEMORY")
    try:
        cursor.execute("SELECT ln(1.0)")
    except sqlite3.OperationalError:  # some builds leave mathematics out
        connection.create_function("ln", 1, _ln, deterministic=True)
    cursor.close()


def _ln(value: float | None) -> float | None:
    """The natural logarithm of a number as SQLite's own gives it: NULL of NULL, and of what has none."""
    return math.log(value) if value is not None and value > 0 else None


def _begin(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _set_wal(target: Engine) -> None:
    """Switch the file to WAL; SQLite refuses this without waiting while another process looks at a new file."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        raw = target.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            raw.close()

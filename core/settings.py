"""Settings of the server, each from the environment variable SLIMBOARD_<NAME>. Loads no torch."""

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import SpecError

LONGEST_SOCKET_PATH = 103  # bytes that fit in a sockaddr_un with its final zero: 107 on Linux, 103 on macOS
KINDS = {int: "whole number", float: "number"}


def _setting(variable: str, default: Any, description: str, *, positive: bool = False) -> Any:
    """A field from an environment variable; an empty variable counts as unset.

    A plain dataclass, because importing a library for settings takes longer than most commands.
    """

    def read() -> Any:
        text = os.environ.get(variable, "")
        return default if text == "" else _parse(variable, text, type(default), positive=positive)

    metadata = {"variable": variable, "default": default, "description": description}
    return field(default_factory=read, metadata=metadata)


def _parse(variable: str, text: str, kind: type[Any], *, positive: bool) -> Any:
    if kind not in KINDS:
        return Path(text) if issubclass(kind, Path) else text
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or (positive and not value > 0):
        wanted = f"{'positive ' if positive else ''}{KINDS[kind]}"
        raise SpecError.of(variable, text, f"is not a {wanted}", f"Set it to a {wanted}, or unset it.")
    return value


@dataclass
class Settings:
    """Settings from the environment; the defaults are for a single machine. Raises SpecError."""

    home: Path = _setting("SLIMBOARD_HOME", Path(".slimboard"), "folder for Slimboard's own files")
    database: str = _setting("SLIMBOARD_DATABASE_URL", "", "SQLAlchemy URL of the store")
    redis: str = _setting("SLIMBOARD_REDIS_URL", "", "URL of the message broker")
    artifacts: str = _setting("SLIMBOARD_ARTIFACTS", "", "folder or fsspec URL of the artifacts")
    data: str = _setting("SLIMBOARD_DATA", "", "folders, separated by ':', that `file:` and folder sources may read")
    lock: str = _setting(
        "SLIMBOARD_LOCK", "", "lock file held during measurements; share one among all containers of a host"
    )
    port: int = _setting("SLIMBOARD_PORT", 8501, "port of the dashboard")
    host: str = _setting("SLIMBOARD_HOST", "127.0.0.1", "address on which the dashboard listens")
    upload_mb: int = _setting("SLIMBOARD_UPLOAD_MB", 2000, "largest upload, in megabytes")
    lease_seconds: float = _setting(
        "SLIMBOARD_LEASE_SECONDS",
        30.0,
        "a run is taken from its worker after this long without a sign of life",
        positive=True,
    )
    timer_seconds: float = _setting(
        "SLIMBOARD_TIMER_SECONDS",
        10.0,
        "how often a worker looks for queued and lost runs without being notified",
        positive=True,
    )
    stop_seconds: float = _setting(
        "SLIMBOARD_STOP_SECONDS",
        45.0,
        "how long a stopping worker waits for its run to save a checkpoint",
        positive=True,
    )
    auth: str = _setting("SLIMBOARD_AUTH", "none", "none, or oidc (configure the provider in Streamlit's secrets.toml)")

    @property
    def database_url(self) -> str:
        """The store: SQLite in `home` unless another is set."""
        return self.database or f"sqlite:///{self.home.absolute() / 'slimboard.db'}"

    @property
    def redis_url(self) -> str:
        """The message broker: the private server's socket in `home` unless another is set."""
        return self.redis or f"redis+socket://{self.redis_socket}"

    @property
    def redis_socket(self) -> Path:
        """The private Redis server's socket: in `home`, or elsewhere if the path of `home` is too long for a socket."""
        socket = self.home.absolute() / "redis.sock"
        if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
            return socket
        digest = hashlib.sha256(os.fsencode(socket)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"slimboard-{os.getuid()}-{digest}" / "redis.sock"

    @property
    def artifacts_url(self) -> str:
        """The folder or URL of the artifacts."""
        return self.artifacts or str(self.home.absolute() / "artifacts")

    @property
    def data_folders(self) -> list[Path]:
        """Folders that users' files may be in: the uploads, and those in `data`."""
        named = [Path(part) for part in self.data.split(":") if part]
        return [self.home.absolute() / "uploads", *named]


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()

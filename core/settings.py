"""What whoever runs the server sets, each as SLIMBOARD_<NAME>. Loads no torch."""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from pydantic import Field, computed_field
from pydantic_settings import BaseSettings, SettingsConfigDict

LONGEST_SOCKET_PATH = 103  # bytes that fit in a sockaddr_un with its final zero: 107 on Linux, 103 on macOS


class Settings(BaseSettings):
    """Settings from the environment; the defaults are the embedded, one-machine ones."""

    model_config = SettingsConfigDict(env_prefix="SLIMBOARD_", extra="ignore")

    home: Path = Field(Path(".slimboard"), description="folder for all that Slimboard writes itself")
    database: str = Field("", alias="SLIMBOARD_DATABASE_URL", description="SQLAlchemy address of the store")
    redis: str = Field("", alias="SLIMBOARD_REDIS_URL", description="address of the queue")
    artifacts: str = Field("", description="folder or fsspec address of the artifacts")
    data: str = Field("", description="folders, separated by ':', in which `file:` and folder sources may lie")
    lock: str = Field("", description="file that is locked while something is timed; one for all containers of a host")
    port: int = Field(8501, description="port of the dashboard")
    host: str = Field("127.0.0.1", description="address that the dashboard listens on")
    upload_mb: int = Field(2000, description="largest upload in megabytes")
    lease_seconds: float = Field(30, gt=0, description="a run whose worker is silent for so long is taken from it")
    timer_seconds: float = Field(10, gt=0, description="how often a worker looks for work and for lost runs by itself")
    stop_seconds: float = Field(45, gt=0, description="how long a stopping worker lets its run save a checkpoint")
    auth: str = Field("none", description="none, or oidc (Streamlit's secrets.toml then names the provider)")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def database_url(self) -> str:
        """The store: SQLite below `home` unless another was named."""
        return self.database or f"sqlite:///{self.home.absolute() / 'slimboard.db'}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def redis_url(self) -> str:
        """The queue: the private server's socket below `home` unless another was named."""
        return self.redis or f"redis+socket://{self.redis_socket}"

    @property
    def redis_socket(self) -> Path:
        """The private Redis server's socket: below `home`, or where a long `home` would not fit in an address."""
        socket = self.home.absolute() / "redis.sock"
        if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
            return socket
        digest = hashlib.sha256(os.fsencode(socket)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"slimboard-{os.getuid()}-{digest}" / "redis.sock"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def artifacts_url(self) -> str:
        """Where artifacts lie."""
        return self.artifacts or str(self.home.absolute() / "artifacts")

    @property
    def data_folders(self) -> list[Path]:
        """Folders in which a user's files may lie: the uploads, and what `data` names."""
        named = [Path(part) for part in self.data.split(":") if part]
        return [self.home.absolute() / "uploads", *named]


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()

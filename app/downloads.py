"""Artifacts as files to download: zipped while they are sent, never whole in memory or on disk twice.

Streamlit's own download button keeps a file in memory, so the front end serves this address itself. A link is
signed with Streamlit's cookie secret and ends after a day; only the run page, which knows the user's role, makes one.
"""

import base64
import hashlib
import hmac
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from streamlit import config

from app import artifacts

ROUTE = "/artifact/{token}"
CHUNK = 1 << 20  # bytes read at a time
VALID_SECONDS = 24 * 3600


def link(key: str, name: str) -> str:
    """Address, relative to a page, of a stage's artifact as `<name>.zip`."""
    content = json.dumps([key, name, int(time.time()) + VALID_SECONDS]).encode()
    return f"artifact/{_text(content)}.{_text(_signature(content))}"


async def send(request: Request) -> Response:
    """Stream the artifact that a signed link names."""
    named = _read(request.path_params["token"])
    if named is None:
        return PlainTextResponse("This link has ended. Open the run page and download again.", status_code=403)
    key, name = named
    try:
        folder = await run_in_threadpool(artifacts.store().open, key)
    except FileNotFoundError:
        return PlainTextResponse("The artifact is not there any more.", status_code=404)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(zipped(folder, name), media_type="application/zip", headers=headers)


def zipped(folder: Path, name: str) -> Iterator[bytes]:
    """The files of a folder as a zip with one top folder, piece by piece; stored, since weights hardly compress."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo.from_file(file, f"{name}/{file.relative_to(folder)}")
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()


class _Pipe:
    """A file that can only be written to; what was written is taken away."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self.waiting.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        data, self.waiting = b"".join(self.waiting), []
        return data


def _read(token: str) -> tuple[str, str] | None:
    """Key and name that a link holds; None where it is not ours or has ended."""
    parts = token.split(".")
    try:
        content, signature = (base64.urlsafe_b64decode(part + "==") for part in parts)
    except ValueError:
        return None
    if not hmac.compare_digest(signature, _signature(content)):
        return None
    key, name, until = json.loads(content)
    return (key, name) if time.time() < until else None


def _signature(content: bytes) -> bytes:
    return hmac.digest(str(config.get_option("server.cookieSecret")).encode(), b"artifact " + content, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

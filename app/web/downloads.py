"""Downloads of artifacts and bundles, zipped while streaming, without a full copy in memory or on disk.

Streamlit's own download button keeps a file in memory, so the front end serves these URLs itself. Links are signed with
Streamlit's cookie secret and expire after a day; only the Run page, which knows the user's role, creates them.
"""

import base64
import hashlib
import hmac
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from streamlit import config

from app.actions import bundles
from app.actions.artifacts import take
from core.artifacts.zip_stream import Pipe
from core.bundle.errors import BundleError
from core.integrity import DamagedArtifact

ROUTE = "/artifact/{token}"
BUNDLE_ROUTE = "/bundle/{token}"
ENDED = PlainTextResponse("This link has expired. Open the run page and download again.", status_code=403)
CHUNK = 1 << 20  # bytes read at a time
VALID_SECONDS = 24 * 3600


def make_link(key: str, name: str) -> str:
    """URL, relative to a page, of a stage's artifact as `<name>.zip`."""
    return _signed("artifact", key, name)


def bundle_link(run_id: int) -> str:
    """URL, relative to a page, of a run's bundle without weights."""
    return _signed("bundle", run_id)


async def send(request: Request) -> Response:
    """Stream the artifact of a signed link."""
    named = _read("artifact", request.path_params["token"])
    if named is None:
        return ENDED
    key, name = named
    try:
        folder = await run_in_threadpool(take, key, "A download")
    except FileNotFoundError:
        return PlainTextResponse("The artifact no longer exists.", status_code=404)
    except DamagedArtifact as damaged:
        text = f"The artifact is damaged: {damaged}. Requeue a run that has this stage to compute it again."
        return PlainTextResponse(text, status_code=409)
    return _zip(zip_folder(folder, name), name)


async def send_bundle(request: Request) -> Response:
    """Stream the bundle of a signed link."""
    named = _read("bundle", request.path_params["token"])
    if named is None:
        return ENDED
    (run_id,) = named
    try:
        pieces = await run_in_threadpool(bundles.stream_bundle, run_id)
    except BundleError as error:
        return PlainTextResponse(str(error), status_code=409)
    return _zip(pieces, f"slimboard-run-{run_id}")


def _zip(pieces: Iterator[bytes], name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


def zip_folder(folder: Path, name: str) -> Iterator[bytes]:
    """The files of a folder as a zip with one top folder, in pieces; uncompressed, as weights hardly compress."""
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo.from_file(file, f"{name}/{file.relative_to(folder)}")
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()


def _signed(kind: str, *values: str | int) -> str:
    content = json.dumps([*values, int(time.time()) + VALID_SECONDS]).encode()
    return f"{kind}/{_text(content)}.{_text(_signature(kind, content))}"


def _read(kind: str, token: str) -> list[Any] | None:
    """The values in a link; None if it is forged, of another kind, or expired."""
    parts = token.split(".")
    try:
        content, signature = (base64.urlsafe_b64decode(part + "==") for part in parts)
    except ValueError:
        return None
    if not hmac.compare_digest(signature, _signature(kind, content)):
        return None
    *values, until = json.loads(content)
    return values if time.time() < until else None


def _signature(kind: str, content: bytes) -> bytes:
    secret = str(config.get_option("server.cookieSecret")).encode()
    return hmac.digest(secret, f"{kind} ".encode() + content, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

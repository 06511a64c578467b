"""Artifacts as downloads: the zip, piece by piece, and the links that name it."""

import io
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app.queries import artifacts
from app.web import downloads


@pytest.fixture
def artifact(store):
    """An artifact of one large file and one in a folder; yields its key."""
    key = "ab" * 32
    folder = artifacts.store().cache / artifacts.store().address(key)
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    save_file({"weight": np.arange(786_432, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "tokenizer" / "vocab.txt").write_text("a b c")
    return key


def test_the_zip_holds_every_file_below_one_folder(artifact):
    folder = artifacts.store().open(artifact)
    with zipfile.ZipFile(io.BytesIO(b"".join(downloads.zip_folder(folder, "run-1-stage-2")))) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "run-1-stage-2/manifest.json",
            "run-1-stage-2/model.safetensors",
            "run-1-stage-2/tokenizer/vocab.txt",
        ]
        assert archive.read("run-1-stage-2/model.safetensors") == (folder / "model.safetensors").read_bytes()


def test_the_zip_is_sent_piece_by_piece(artifact):
    folder = artifacts.store().open(artifact)
    assert max(map(len, downloads.zip_folder(folder, "x"))) < 2 * downloads.CHUNK


def client() -> TestClient:
    return TestClient(Starlette(routes=[Route(downloads.ROUTE, downloads.send)]))


def test_a_link_downloads_the_artifact(artifact):
    answer = client().get("/" + downloads.make_link(artifact, "run-1-stage-2"))
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="run-1-stage-2.zip"'
    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None


def test_a_forged_or_old_link_is_refused(artifact, monkeypatch):
    good = downloads.make_link(artifact, "x")
    content, signature = good.removeprefix("artifact/").split(".")
    for token in (f"{content}.{content}", f"{content}x.{signature}", "nothing", "a.b.c"):
        assert client().get(f"/artifact/{token}").status_code == 403
    monkeypatch.setattr(downloads, "VALID_SECONDS", -1)
    assert client().get("/" + downloads.make_link(artifact, "x")).status_code == 403


def test_an_artifact_that_is_gone_is_told(store):
    assert client().get("/" + downloads.make_link("cd" * 32, "x")).status_code == 404

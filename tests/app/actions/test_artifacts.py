"""Damaged artifacts where they would leave this installation, or come into it: refused, told and discarded."""

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app.queries import artifacts
from app.web import downloads
from core import integrity
from core.store import users
from core.store.engine import read_session, session
from core.store.models import Artifact, Event, Stage
from tests import bundled
from tests.app.actions.test_bundles import elsewhere
from tests.app.cli.test_main import slimboard
from tests.bundled import DENSE, SMALL

__all__ = ["elsewhere"]


def keep_sealed_files() -> None:
    """Both stages' artifacts, with the digests of their files."""
    bundled.keep_files(artifacts.store())
    for key in (DENSE, SMALL):
        folder = artifacts.store().open(key)
        (folder / "something.partial").unlink()
        added = [path for path in folder.iterdir() if path.name.startswith(("mistakes", "examples", "manifest"))]
        aside = folder.parent / "aside"
        aside.mkdir()
        for path in added:
            path.rename(aside / path.name)
        content = integrity.sealed({"format": 2, "of": key}, folder)
        for path in aside.iterdir():
            path.rename(folder / path.name)
        shutil.rmtree(aside)
        (folder / "manifest.json").write_text(json.dumps(content))


@pytest.fixture
def run_id(store) -> int:
    keep_sealed_files()
    with session() as s:
        users.enrol(s, users.LOCAL_USER)
        return bundled.finished_run(s, users.LOCAL_USER)


def flip(key: str, name: str = "model.safetensors") -> Path:
    file = artifacts.store().open(key) / name
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 0x40]))
    return file


def told(run_id: int) -> list[str]:
    query = select(Event.message).where(
        Event.run_id == run_id, Event.level == "warning", Event.message.contains("found")
    )
    with read_session() as s:
        return list(s.scalars(query))


def recorded() -> set[str]:
    """Keys of stages that have an artifact."""
    with read_session() as s:
        return set(s.scalars(select(Stage.key).join(Artifact, Artifact.stage_id == Stage.id)))


def test_a_damaged_artifact_is_not_downloaded(run_id):
    flip(SMALL)
    client = TestClient(Starlette(routes=[Route(downloads.ROUTE, downloads.send)]))
    answer = client.get("/" + downloads.make_link(SMALL, "x"))
    assert answer.status_code == 409
    assert "model.safetensors does not match its SHA-256 in the manifest. Requeue a run" in answer.text
    assert client.get("/" + downloads.make_link(SMALL, "x")).status_code == 404
    assert client.get("/" + downloads.make_link(DENSE, "x")).status_code == 200
    assert len(told(run_id)) == 1 and told(run_id)[0].startswith("A download found damage in the artifact of rtn 8-bit")
    assert recorded() == {DENSE}
    shown = {path.name for path in artifacts.open_shown(SMALL).iterdir()}  # pages go on showing what was whole
    assert shown == {"manifest.json", "report.json", "examples.safetensors", f"mistakes-{DENSE}.json"}


def test_a_damaged_artifact_is_not_exported(run_id, tmp_path, capsys):
    flip(SMALL)
    assert slimboard("export", str(run_id), str(tmp_path / "copy")) == 1
    assert f"Requeue run {run_id} to compute it again" in capsys.readouterr().err
    assert slimboard("export", str(run_id), str(tmp_path / "copy")) == 1
    assert "is not on this host" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists() and len(told(run_id)) == 1


@pytest.mark.parametrize(("name", "weights"), [("model.safetensors", ["--artifacts"]), ("report.json", [])])
def test_a_damaged_artifact_is_not_bundled(run_id, tmp_path, capsys, name, weights):
    flip(SMALL, name)
    assert slimboard("bundle", str(run_id), str(tmp_path / "run.zip"), *weights) == 1
    assert f"{name} does not match its SHA-256" in capsys.readouterr().err
    assert len(told(run_id)) == 1 and recorded() == {DENSE} and not (tmp_path / "run.zip").exists()


def test_a_bundle_without_weights_does_not_look_at_them(run_id, tmp_path):
    flip(SMALL)
    assert slimboard("bundle", str(run_id), str(tmp_path / "run.zip")) == 0
    assert told(run_id) == []


def test_a_bundle_that_was_written_from_damaged_files_is_refused(run_id, elsewhere, tmp_path, capsys, monkeypatch):
    flip(SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(integrity, "find_damage", lambda folder, names=None: {})
        assert slimboard("bundle", str(run_id), str(tmp_path / "run.zip"), "--artifacts") == 0
    elsewhere()
    assert slimboard("import", str(tmp_path / "run.zip")) == 1
    assert "model.safetensors of stage cccccccccccc does not match its manifest" in capsys.readouterr().err


def test_an_import_brings_whole_weights_in_the_place_of_damaged_ones(run_id, tmp_path):
    assert slimboard("bundle", str(run_id), str(tmp_path / "run.zip"), "--artifacts") == 0
    file = flip(SMALL)
    assert slimboard("import", str(tmp_path / "run.zip"), "--again") == 0
    assert integrity.find_damage(file.parent) == {}
    assert len(told(run_id)) == 1 and told(run_id)[0].startswith("An import found damage")
    assert recorded() == {DENSE, SMALL}

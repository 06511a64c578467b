"""Bundles from the shell and the page: written here, imported into an empty installation, run again."""

import io
import zipfile

import pandas as pd
import pytest
import streamlit as st
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app.queries import artifacts
from app.web import downloads
from core import settings as settings_module
from core.bundle import read
from core.store import engine, stages, users, workers
from core.store.engine import read_session, session
from core.store.models import Membership, Role, Run, RunStatus
from core.store.waiting import find_waiting
from tests import bundled, factories
from tests.app.cli.test_main import slimboard
from tests.app.test_run import opened, words
from tests.bundled import DENSE, SMALL


@pytest.fixture
def run_id(store) -> int:
    bundled.keep_files(artifacts.store())
    with session() as s:
        users.enrol(s, users.LOCAL_USER)
        return bundled.finished_run(s, users.LOCAL_USER)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Turn to another, empty installation."""

    def move() -> None:
        monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path / "elsewhere"))
        settings_module.settings.cache_clear()
        st.cache_data.clear()
        engine.upgrade()

    yield move
    engine.engine().dispose()


def shown(run_id: int) -> dict[str, object]:
    """What the page of a run shows, tab by tab."""
    pages: dict[str, object] = {}
    for tab in ("Stages", "Log", "Layers", "Regressions", "Spec", "Notes"):
        at = opened(run_id, tab=tab)
        pages[tab] = [frame.value for frame in (*at.dataframe, *at.table)]
        pages[f"{tab} words"] = [line for line in words(at).splitlines() if not line.endswith(("ago", "just now"))]
        pages[f"{tab} metrics"] = [(metric.label, metric.value) for metric in at.metric]
    return pages


def assert_alike(here: dict[str, object], there: dict[str, object]) -> None:
    for name, value in here.items():
        if name in ("Stages", "Log", "Layers", "Regressions", "Spec", "Notes"):
            for mine, other in zip(value, there[name], strict=True):
                pd.testing.assert_frame_equal(mine, other)
        else:
            assert there[name] == value, name


def test_the_imported_run_has_the_same_page(run_id, elsewhere, tmp_path, capsys):
    before = shown(run_id)
    file = tmp_path / "run.zip"
    assert slimboard("bundle", str(run_id), str(file)) == 0
    elsewhere()
    assert slimboard("import", str(file)) == 0
    number = int(capsys.readouterr().out.split()[-1])
    after = shown(number)
    for pages in (before, after):  # the import itself is a line of the log
        pages["Log words"] = [line for line in pages["Log words"] if "began" not in line and "imported" not in line]
    assert_alike(before, after)
    assert "**7**, predicted **1**" in "\n".join(after["Regressions words"])
    page = opened(number, tab="Artifacts")
    assert "imported without weights" in words(page)
    assert [element.proto.label for element in page.get("link_button")] == ["Bundle"] and not page.code
    assert not artifacts.store().has(SMALL)  # or a worker would take the stage for computed


def test_weights_come_along_when_asked_for(run_id, elsewhere, tmp_path, capsys):
    there = artifacts.store().open(SMALL)
    file = tmp_path / "run.zip"
    assert slimboard("bundle", str(run_id), str(file), "--artifacts") == 0
    elsewhere()
    assert slimboard("import", str(file)) == 0
    number = int(capsys.readouterr().out.split()[-1])
    here = artifacts.store().open(SMALL)
    assert here != there and (here / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()
    assert slimboard("export", str(number), str(tmp_path / "copy")) == 0
    assert (tmp_path / "copy" / "tokenizer" / "vocab.json").exists()


def test_an_identical_run_is_refused_unless_again(run_id, elsewhere, tmp_path, capsys):
    file = tmp_path / "run.zip"
    assert slimboard("bundle", str(run_id), str(file)) == 0
    assert slimboard("import", str(file)) == 1
    assert f"This run is already in the project as run {run_id}" in capsys.readouterr().err
    elsewhere()
    assert slimboard("import", str(file)) == 0
    assert slimboard("import", str(file)) == 1
    assert slimboard("import", str(file), "--again") == 0
    with read_session() as s:
        assert [(run.status, run.name) for run in s.scalars(select(Run))] == [(RunStatus.DONE, "small one")] * 2


def test_a_rerun_queues_the_same_spec(run_id, elsewhere, store, tmp_path, capsys):
    file = tmp_path / "run.zip"
    slimboard("bundle", str(run_id), str(file))
    elsewhere()
    assert slimboard("rerun", str(file)) == 0
    number = int(capsys.readouterr().out.split()[-1])
    with read_session() as s:
        run = s.get_one(Run, number)
        assert (run.status, run.spec) == (RunStatus.QUEUED, factories.spec("small one").to_dict())
    assert store == ["any"]


def test_a_run_that_started_from_another_is_shown_but_never_queued(store, elsewhere, tmp_path, capsys):
    with session() as s:
        users.enrol(s, users.LOCAL_USER)
        number = bundled.finished_run(s, users.LOCAL_USER, model="run:1")
    file = tmp_path / "run.zip"
    assert slimboard("bundle", str(number), str(file)) == 0
    elsewhere()
    assert slimboard("rerun", str(file)) == 1
    assert "refers to run 1 of its original store" in capsys.readouterr().err
    assert slimboard("import", str(file)) == 0
    imported = int(capsys.readouterr().out.split()[-1])
    assert slimboard("requeue", str(imported)) == 0
    with session() as s:
        workers.register_worker(s, "w", "cpu", hardware={}, offers={}, provides=["cpu"])
        assert "run:1 of the store that it comes from" in find_waiting(s, [imported], 60.0)[imported]


def test_viewers_import_nothing(run_id, tmp_path, capsys):
    file = tmp_path / "run.zip"
    slimboard("bundle", str(run_id), str(file))
    with session() as s:
        user = users.enrol(s, users.LOCAL_USER)
        s.get_one(Membership, (user.id, 1)).role = Role.VIEWER
    assert slimboard("import", str(file), "--again") == 1
    assert "You must be a member of the project to import a run" in capsys.readouterr().err


def test_the_project_may_be_named(run_id, tmp_path, capsys):
    file = tmp_path / "run.zip"
    slimboard("bundle", str(run_id), str(file))
    assert slimboard("import", str(file), "--project", "none such") == 1
    assert "has no role in none such" in capsys.readouterr().err


def test_a_broken_bundle_leaves_nothing_behind(run_id, elsewhere, tmp_path, capsys):
    file = tmp_path / "run.zip"
    slimboard("bundle", str(run_id), str(file), "--artifacts")
    file.write_bytes(file.read_bytes()[:-50])
    elsewhere()
    assert slimboard("import", str(file)) == 1
    assert "This is not a bundle" in capsys.readouterr().err
    with read_session() as s:
        assert s.scalar(select(Run.id)) is None and stages.find_stage_id(s, DENSE) is None
    assert not list((tmp_path / "elsewhere").rglob("*.safetensors"))


def test_a_file_that_is_there_is_not_written_over(run_id, tmp_path, capsys):
    (tmp_path / "run.zip").write_text("mine")
    assert slimboard("bundle", str(run_id), str(tmp_path / "run.zip")) == 1
    assert "already exists" in capsys.readouterr().err
    assert slimboard("bundle", str(run_id), str(tmp_path / "no" / "run.zip")) == 1
    assert slimboard("bundle", "99", str(tmp_path / "other.zip")) == 1
    assert "There is no run 99" in capsys.readouterr().err
    assert [p.name for p in tmp_path.glob("*.zip*")] == ["run.zip"] and not list(tmp_path.glob(".*partial"))


def client() -> TestClient:
    routes = [Route(downloads.ROUTE, downloads.send), Route(downloads.BUNDLE_ROUTE, downloads.send_bundle)]
    return TestClient(Starlette(routes=routes))


def test_the_pages_button_downloads_the_bundle(run_id, tmp_path):
    page = opened(run_id, tab="Artifacts")
    link = next(e.proto.url for e in page.get("link_button") if e.proto.label == "Bundle")
    answer = client().get("/" + link)
    assert answer.headers["content-disposition"] == f'attachment; filename="slimboard-run-{run_id}.zip"'
    (tmp_path / "run.zip").write_bytes(answer.content)
    with read.open_bundle(tmp_path / "run.zip") as found:
        assert found.run.name == "small one"
    assert "model.safetensors" not in " ".join(zipfile.ZipFile(io.BytesIO(answer.content)).namelist())


def test_a_link_to_an_artifact_opens_no_bundle(run_id):
    token = downloads.make_link(SMALL, "x").removeprefix("artifact/")
    assert client().get(f"/bundle/{token}").status_code == 403
    token = downloads.bundle_link(run_id).removeprefix("bundle/")
    assert client().get(f"/artifact/{token}").status_code == 403


def test_a_run_that_goes_on_has_no_bundle(store):
    with session() as s:
        number = factories.submit(s).id
    assert not opened(number, tab="Artifacts").get("link_button")
    assert client().get("/" + downloads.bundle_link(number)).status_code == 409

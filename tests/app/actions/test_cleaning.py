"""`slimboard clean`: the weights of old runs go, what pages show stays."""

import sys
from pathlib import Path

import pytest
from sqlalchemy import select, update
from streamlit.testing.v1 import AppTest

from app.cli import main
from app.queries import artifacts
from core.store.engine import read_session, session
from core.store.models import Artifact, Run, RunStage, RunStatus, Stage
from tests import factories


def slimboard(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["slimboard", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


@pytest.fixture
def run_id(store) -> int:
    """A run that is done, of two stages or more, whose artifacts are here; all runs are over."""
    with session() as s:
        factories.fill_store(s, 12)
        s.execute(update(Run).values(status=RunStatus.DONE, ended_at=1000.0))
        number = s.scalars(select(RunStage.run_id).where(RunStage.position == 2).limit(1)).one()
        for key in s.scalars(select(Stage.key)).all():
            with artifacts.store().writing(key) as folder:
                (folder / "manifest.json").write_text("{}")
                (folder / "report.json").write_text('{"kept": true}')
                (folder / "model.safetensors").write_bytes(b"weights")
    return number


def keys(run_id: int) -> list[str]:
    with read_session() as s:
        query = select(Stage.key).join(RunStage, RunStage.stage_id == Stage.id).order_by(RunStage.position)
        return list(s.scalars(query.where(RunStage.run_id == run_id)))


def test_nothing_is_removed_without_yes(run_id, monkeypatch, capsys):
    assert slimboard(monkeypatch, "clean") == 0
    assert "can be removed; add --yes" in capsys.readouterr().out
    assert all(artifacts.store().has(key) for key in keys(run_id))


def test_weights_of_inner_stages_go_and_their_results_stay(run_id, monkeypatch, capsys):
    assert slimboard(monkeypatch, "clean", "--yes") == 0
    assert "removed weights of" in capsys.readouterr().out
    *inner, last = keys(run_id)
    assert artifacts.store().has(last) and (artifacts.open_shown(last) / "model.safetensors").exists()
    for key in inner:
        assert not artifacts.store().has(key)
        assert (artifacts.open_shown(key) / "report.json").read_text() == '{"kept": true}'
        assert not (artifacts.open_shown(key) / "model.safetensors").exists()
    with read_session() as s:
        left = set(s.scalars(select(Stage.key).join(Artifact, Artifact.stage_id == Stage.id)))
    assert last in left and not left & set(inner)
    assert slimboard(monkeypatch, "clean") == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_run_without_weights_still_opens(run_id, monkeypatch):
    assert slimboard(monkeypatch, "clean", "--yes", "--last-too") == 0
    at = AppTest.from_file(str(Path(main.__file__).parents[1] / "main.py"), default_timeout=30).run()
    at.switch_page("screens/run/page.py")
    at.query_params.update({"run": str(run_id), "tab": "Artifacts"})
    assert not at.run().exception


def test_young_runs_keep_theirs(run_id, monkeypatch, capsys):
    assert slimboard(monkeypatch, "clean", "--days", "100000") == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_while_runs_execute_nothing_is_removed(run_id, monkeypatch, capsys):
    with session() as s:
        s.get_one(Run, run_id).status = RunStatus.RUNNING
    assert slimboard(monkeypatch, "clean", "--yes") == 1
    assert "1 run in progress may read any weights" in capsys.readouterr().err
    assert all(artifacts.store().has(key) for key in keys(run_id))

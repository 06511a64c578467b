"""A recipe executed for real, bundled, imported into an empty installation and run again there."""

import pytest
from sqlalchemy import select

from app.actions import bundles, runs
from app.queries import artifacts
from core import settings as settings_module
from core.bundle import read
from core.spec.catalogue import built_in
from core.spec.model import RunSpec
from core.store import engine, queue, stages, users, workers
from core.store.engine import read_session, session
from core.store.models import Point, RunStatus
from tests.actors import actor
from worker import job
from worker.claim import Claim
from worker.recorder import Recorder

RECIPE = {
    "name": "tiny",
    "model": {"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2},
    "task": "builtin:digits",
    "recipe": [{"train": {"steps": 4}}, {"rtn": {"bits": 8}}],
    "measure": {"repeats": 5, "memory": False, "test_examples": 64},
}
MEASURED = (
    "key",
    "label",
    "size_bytes",
    "score",
    "score_low",
    "score_high",
    "scores",
    "parameters",
    "nonzeros",
    "macs",
)


@pytest.fixture
def move_to(tmp_path, monkeypatch):
    """Turn to an installation of its own below this name."""
    monkeypatch.setattr(runs, "enqueue", lambda device: None)
    monkeypatch.setattr(Recorder, "listen_for_stop", lambda recorder: None)  # this process is pytest's

    def move(name: str) -> tuple[int, int]:
        monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path / name))
        settings_module.settings.cache_clear()
        engine.upgrade()
        with session() as s:
            user_id = users.enrol(s, users.LOCAL_USER).id
            return user_id, users.list_projects(s, user_id)[0].id

    yield move
    engine.engine().dispose()
    settings_module.settings.cache_clear()


def needs() -> list[str]:
    """What a worker must provide to execute RECIPE."""
    known = built_in()
    techniques = [f"technique:{name}#{known.techniques[name]['hash']}" for name in ("train", "rtn")]
    return [*techniques, f"runtime:eager#{known.runtimes['eager']['hash']}"]


def execute(run_id: int) -> None:
    """What a worker does with the run, in this process."""
    offers = dict(need.split("#") for need in needs())
    with session() as s:
        worker_id = workers.register_worker(s, "w", "cpu", hardware={}, offers=offers, provides=["cpu"])
        claimed = queue.claim_next_run(s, worker_id, "cpu", [*offers, *needs(), "cpu"], 600.0)
        assert claimed is not None and claimed.id == run_id
        claim = Claim(claimed.id, claimed.attempt, "cpu")
    ended = job.run(claim)
    assert ended.status == RunStatus.DONE, ended
    with session() as s:
        assert queue.finish_run(s, claim.run_id, claim.attempt, ended)


def found(run_id: int) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """What the run measured, and its curves."""
    with read_session() as s:
        rows = [tuple(getattr(row.Stage, name) for name in MEASURED) for row in stages.list_run_stages(s, run_id)]
        query = select(Point.curve, Point.step, Point.value).where(Point.run_id == run_id, Point.curve == "1/loss")
        return rows, [tuple(row) for row in s.execute(query)]


@pytest.mark.parametrize("weights", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_rerun_of_an_imported_bundle_gives_the_same_metrics(move_to, tmp_path, weights):
    user_id, project_id = move_to("here")
    run_id = runs.submit(actor(user_id, project_id), RunSpec.parse(RECIPE), built_in())
    execute(run_id)
    before = found(run_id)
    assert len(before[0]) == 3 and before[1]
    bundles.save(run_id, tmp_path / "run.zip", weights=weights)

    user_id, project_id = move_to("there")
    with read.open_bundle(tmp_path / "run.zip") as bundle:
        imported, differing = bundles.add(actor(user_id, project_id), bundle, built_in(), again=False)
        again = runs.submit(actor(user_id, project_id), bundle.spec, built_in())
    assert (differing, found(imported)) == ([], before)
    assert artifacts.store().has(before[0][1][0]) == weights
    execute(again)
    rows, curve = found(again)
    assert rows == before[0]
    if not weights:  # computed anew; with weights the training was taken over
        assert curve == before[1]


def test_a_rerun_in_an_installation_of_its_own_measures_the_same(move_to, tmp_path):
    user_id, project_id = move_to("here")
    run_id = runs.submit(actor(user_id, project_id), RunSpec.parse(RECIPE), built_in())
    execute(run_id)
    before = found(run_id)
    bundles.save(run_id, tmp_path / "run.zip", weights=False)

    user_id, project_id = move_to("there")
    with read.open_bundle(tmp_path / "run.zip") as bundle:
        again = runs.submit(actor(user_id, project_id), bundle.spec, built_in())
    execute(again)
    assert found(again) == before

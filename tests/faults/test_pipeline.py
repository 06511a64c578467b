"""The whole way with nothing replaced: a real worker, a real recipe, a stop in mid-training."""

import signal

import pytest
from sqlalchemy import select

from core.store import stages
from core.store.engine import read_session
from core.store.models import Artifact, Point, RunStatus
from tests.faults.conftest import Cluster, sqlite_cluster
from worker.celery_app import make_worker_arguments

N_UPDATES = 100
RECIPE = {
    "model": {"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2},
    "recipe": [{"train": {"steps": N_UPDATES, "batch_size": 8}}, "rtn"],
    "measure": {"repeats": 5, "memory": False, "test_examples": 64},
}


def measured(cluster: Cluster, run_id: int) -> list[tuple[str, int, float, bool]]:
    with read_session(cluster.url) as s:
        rows = stages.list_run_stages(s, run_id)
        return [(r.Stage.technique, r.Stage.size_bytes, r.Stage.score, r.RunStage.reused) for r in rows]


@pytest.mark.timeout(900)
def test_stopped_training_goes_on_elsewhere_and_gives_what_an_undisturbed_one_gives():
    arguments = tuple(make_worker_arguments("cpu"))
    with sqlite_cluster() as calm, sqlite_cluster() as disturbed:
        for cluster in (calm, disturbed):
            cluster.module = "celery"
        first = disturbed.start_worker(arguments)
        run_id = disturbed.submit("train and round", **RECIPE)
        disturbed.wait(lambda: "update" in disturbed.run(run_id).progress_text, lambda: disturbed.log(run_id))
        first.send_signal(signal.SIGTERM)
        first.wait(60)
        assert disturbed.run(run_id).status == RunStatus.QUEUED
        disturbed.start_worker(arguments)
        undisturbed_id = calm.submit("train and round", **RECIPE)
        calm.start_worker(arguments)
        run = disturbed.wait_for(run_id, RunStatus.DONE, RunStatus.FAILED)
        assert (run.status, run.attempts_left) == (RunStatus.DONE, 2), disturbed.log(run_id)
        calm.wait_for(undisturbed_id, RunStatus.DONE)
        assert measured(disturbed, run_id) == measured(calm, undisturbed_id)
        assert [technique for technique, *_ in measured(calm, undisturbed_id)] == ["source", "train", "rtn"]
        steps = disturbed.rows(select(Point.step).where(Point.run_id == run_id, Point.curve == "1/loss"))
        assert len(steps) == len(calm.rows(select(Point.step).where(Point.curve == "1/loss")))
        for row in disturbed.rows(select(Artifact.address)):
            assert (disturbed.folder / "artifacts" / row.address / "manifest.json").exists()

        twin = calm.submit("the same again", **RECIPE)
        calm.wait_for(twin, RunStatus.DONE)
        assert [reused for *_, reused in measured(calm, twin)] == [True, True, True]

"""What a run in the foreground takes from the store, and what it refuses on this machine."""

from dataclasses import replace

import pytest

from app.cli import foreground
from core.artifacts.store import ArtifactStore
from core.engine import pipeline
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure import compute, latency, memory, score
from core.runtimes import base
from core.settings import settings
from core.spec.model import RunSpec
from core.store import engine, stages
from core.store.models import Run, RunStatus
from tests import factories

TINY = {
    "model": {"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2},
    "task": "builtin:digits",
    "recipe": [{"train": {"steps": 4}}, {"rtn": {"bits": 8}}],
    "measure": {"repeats": 5, "test_examples": 64},
}


def recorded_run() -> int:
    """Execute TINY and record it as a worker does, as if nothing had disturbed its latencies; returns the run's id."""
    artifacts = ArtifactStore(settings().artifacts_url, settings().home)
    found = pipeline.execute(RunSpec.parse(TINY), MemoryRecord(), artifacts=artifacts)
    with engine.session() as s:
        run_id = factories.submit(s, **TINY).id
        for each in found:
            stage_id = stages.add_stage(s, each.measured, each.artifact, each.artifact_bytes, each.manifest_sha256)
            reference_id = stages.find_stage_id(s, each.reference_key) if each.reference_key else None
            stages.attach_stage(
                s,
                run_id,
                each.position,
                stage_id,
                reused=False,
                reference_stage_id=reference_id,
                comparison=each.comparison,
                fidelity=each.fidelity,
            )
            rows = [replace(row, disturbed=False) for row in each.latencies]
            stages.set_latencies(s, run_id, stage_id, rows, reference_id)
        s.get_one(Run, run_id).status = RunStatus.DONE
    return run_id


def test_recorded_stages_are_reused_and_earlier_runs_found(store, monkeypatch):
    run_id = recorded_run()
    with engine.read_session() as s:
        scores = [row.Stage.score for row in stages.list_run_stages(s, run_id)]

    def refuse(*arguments, **settings):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        for module, name in ((score, "evaluate"), (compute, "count"), (memory, "reload"), (latency, "measure")):
            patch.setattr(module, name, refuse)
        result = foreground.execute(RunSpec.parse(TINY), "cpu")
    assert [stage["score"] for stage in result["stages"]] == scores
    assert result["stages"][1]["latencies"]

    result = foreground.execute(RunSpec.parse(TINY | {"model": f"run:{run_id}", "recipe": []}), "cpu")
    assert [stage["score"] for stage in result["stages"]] == scores[-1:]  # it starts from what that run came to


def test_without_a_store_an_earlier_run_is_refused(store, monkeypatch):
    monkeypatch.setattr("app.cli.shell.store_exists", lambda: False)
    with pytest.raises(SpecError, match=r"run:1.*needs a store"):
        foreground.execute(RunSpec.parse(TINY | {"model": "run:1"}), "cpu")


def test_a_store_of_another_version_is_left_alone_with_a_word(store, monkeypatch, capsys):
    monkeypatch.setattr(engine, "revision", lambda: ("0001", "0007"))
    asked = []

    def stop(spec, record, **where):
        asked.append(record.find_stage("0" * 64))
        raise foreground.OutOfTime

    monkeypatch.setattr(pipeline, "execute", stop)
    with pytest.raises(foreground.OutOfTime):
        foreground.execute(RunSpec.parse(TINY), "cpu")
    assert asked == [None]
    assert "stages in the store are not reused: the store is at revision 0001, not 0007" in capsys.readouterr().err


def test_a_runtime_that_is_not_installed_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(base, "installed_version", {"onnx": "1.17"}.get)
    monkeypatch.setattr(pipeline, "execute", lambda *_, **__: pytest.fail("computed something"))
    measure = {"runtimes": ["eager", "onnxruntime"]}
    spec = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "measure": measure})
    with pytest.raises(SpecError) as caught:
        foreground.execute(spec, "cpu")
    [problem] = caught.value.problems
    assert (problem.value, problem.message) == (
        "runtime onnxruntime",
        "requires onnxruntime, which is not available here",
    )

"""What a disk does to artifacts: a flipped bit in one that runs share, and a disk that is full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.actions import runs
from app.queries import artifacts
from core import settings as settings_module
from core.integrity import PACKED
from core.spec.catalogue import built_in
from core.spec.model import RunSpec
from core.store import queue, stages
from core.store.engine import read_session, session
from core.store.models import Event, FailureClass, Run, RunStatus
from tests.actors import actor
from tests.faults.test_bundle import RECIPE, execute, found, move_to, needs
from worker import job
from worker.claim import Claim

__all__ = ["move_to"]


def submit(user_id: int, project_id: int) -> int:
    return runs.submit(actor(user_id, project_id), RunSpec.parse(RECIPE), built_in())


def warnings(run_id: int) -> list[str]:
    with read_session() as s:
        return list(s.scalars(select(Event.message).where(Event.run_id == run_id, Event.level == "warning")))


def reused(run_id: int) -> list[bool]:
    with read_session() as s:
        return [row.RunStage.reused for row in stages.list_run_stages(s, run_id)]


def test_a_flipped_bit_costs_the_stage_and_no_score(move_to):
    user_id, project_id = move_to("here")
    first = submit(user_id, project_id)
    execute(first)
    before = found(first)
    trained = before[0][1][0]
    file = artifacts.store().open(trained) / PACKED
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 0x40]))

    second = submit(user_id, project_id)
    execute(second)
    assert found(first)[0] == found(second)[0] == before[0]
    assert reused(second) == [True, False, True]
    assert file.read_bytes() == good
    assert [PACKED in text for text in warnings(first)] == [PACKED in text for text in warnings(second)] == [True]

    third = submit(user_id, project_id)
    execute(third)
    assert reused(third) == [True, True, True] and warnings(third) == []


def test_a_wrong_score_of_an_artifact_that_is_gone_is_replaced(move_to):
    user_id, project_id = move_to("here")
    first = submit(user_id, project_id)
    execute(first)
    before = found(first)
    with session() as s:
        trained = stages.list_run_stages(s, first)[1].Stage
        trained.score, key = trained.score - 15.7, trained.key
    artifacts.store().remove(key)

    second = submit(user_id, project_id)
    execute(second)
    assert found(first)[0] == found(second)[0] == before[0]
    assert [f"Run {second} computed and measured" in text for text in warnings(first)] == [True]
    with read_session() as s:
        deltas = [[row.RunStage.score_delta for row in stages.list_run_stages(s, run)] for run in (first, second)]
    assert deltas[0] == deltas[1] and deltas[0][2] is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that holds no artifact."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def attempt(run_id: int) -> queue.Ended:
    with session() as s:
        claimed = queue.claim_next_run(s, None, "cpu", needs(), 600.0)
        assert claimed is not None and claimed.id == run_id
        claim = Claim(claimed.id, claimed.attempt, "cpu")
    ended = job.run(claim)
    with session() as s:
        queue.finish_run(s, claim.run_id, claim.attempt, ended)
    return ended


def test_a_full_disk_is_told_retried_and_leaves_nothing_half_written(move_to, small_disk, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_ARTIFACTS", str(small_disk / "artifacts"))
    settings_module.settings.cache_clear()
    user_id, project_id = move_to("here")
    run_id = submit(user_id, project_id)
    ended = attempt(run_id)
    assert (ended.status, ended.failure) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    assert ended.message.startswith(f"The disk is full: writing to {small_disk / 'artifacts'}")
    assert [path.name for path in (small_disk / "artifacts").rglob("*") if path.is_file()] == []
    with read_session() as s:
        assert s.get_one(Run, run_id).status == RunStatus.QUEUED
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    assert attempt(run_id).status == RunStatus.DONE

from types import SimpleNamespace

import pytest

from core import settings as module
from worker import shared


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_ARTIFACTS", str(tmp_path / "artifacts"))
    module.settings.cache_clear()
    yield
    module.settings.cache_clear()


def worker(artifacts_id, lost=False, stopped_at=None):
    return SimpleNamespace(name="other", hardware={"artifacts": artifacts_id}, lost=lost, stopped_at=stopped_at)


def test_same_artifacts_have_the_same_name():
    assert shared.read_artifacts_id() == shared.read_artifacts_id() != ""


def test_other_artifacts_of_a_living_worker_are_refused():
    mine = shared.read_artifacts_id()
    shared.check_shared(mine, [worker(mine), worker("gone", lost=True), worker("left", stopped_at=1.0)])
    with pytest.raises(shared.NotShared, match="SLIMBOARD_ARTIFACTS"):
        shared.check_shared(mine, [worker("elsewhere")])


def test_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLIMBOARD_ARTIFACTS", str(tmp_path / "file" / "artifacts"))
    module.settings.cache_clear()
    with pytest.raises(shared.NotShared, match="cannot be written"):
        shared.read_artifacts_id()

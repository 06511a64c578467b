"""How long a recipe may take, by what its steps took before."""

import pytest

from core.store import engine, estimates, stages
from tests.factories import measured


@pytest.fixture
def session(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    engine.upgrade(url)
    with engine.session(url) as s:
        yield s
    engine.engine(url).dispose()


def add(session, technique, seconds, model="builtin:vit", **settings):
    key = f"{technique}{seconds}{model}"
    stage = measured(key, technique=technique, seconds=seconds, model=model, settings=settings)
    stages.add_stage(session, stage, key, 1, "")


def test_median_of_the_same_technique_model_and_task(session):
    for seconds in (1.0, 2.0, 9.0):
        add(session, "rtn", seconds)
    add(session, "rtn", 500.0, model="builtin:gpt")
    assert estimates.step_seconds(session, "builtin:vit", "builtin:digits", [("rtn", {"bits": 4})]) == [2.0]


def test_a_training_is_estimated_by_its_updates(session):
    add(session, "train", 10.0, steps=100)
    add(session, "train", 40.0, steps=200)
    wanted = [("train", {"steps": 1000}), ("svd", {})]
    assert estimates.step_seconds(session, "builtin:vit", "builtin:digits", wanted) == [pytest.approx(150.0), None]

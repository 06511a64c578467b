"""Another budget on the run page: its range, its points, and queueing it."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.actions.budgets import with_budget
from app.queries import run_details
from app.queries.sensitivity import load_choices
from app.screens.run.budgets import format_table, predicted_points, slider_range
from core.allocation.units import UNITS
from core.spec.model import RunSpec
from core.store import stages
from core.store.engine import read_session, session
from core.store.models import Run, RunStage, RunStatus
from tests import factories
from tests.app.test_run import button, change, opened, words
from tests.core.allocation.test_table import table

RECIPE = [{"sensitivity": {"bits": [2, 4, 8]}}, {"mixed_precision": {"budget": 6.0}}]


@pytest.mark.parametrize("unit", UNITS)
def test_the_slider_goes_from_the_cheapest_choice_to_the_dearest_format(unit):
    found = table()
    low, high, step = slider_range(found, unit)
    found.solve(unit, low)
    assert low < high
    assert 100 <= round((high - low) / step) <= 2100


def test_points_are_those_of_the_frontier_and_of_what_is_beside_it():
    points = predicted_points(table(), "average-bits")
    uniform = [point for point in points if point["kind"] == "uniform"]
    assert [point["label"] for point in uniform] == ["2-bit", "4-bit", "8-bit", "W8A8"]
    assert [point["named"] for point in uniform] == [True, True, True, False]
    mixed = [point for point in points if point["kind"] == "mixed"]
    assert [point["cost"] for point in mixed] == sorted(point["cost"] for point in mixed)
    losses = [point["loss"] for point in mixed]
    assert losses == sorted(losses, reverse=True)
    assert [point["label"] for point in points if point["kind"] == "first and last at 8 bit"] == [
        "2-bit × 1, 8-bit × 2",
        "4-bit × 1, 8-bit × 2",
    ]


def test_the_formats_of_a_budget_as_a_table():
    shown = format_table(table(), np.array([3, 2, 0]))
    assert shown["Format"].tolist() == ["8-bit", "4-bit", "dense"]
    assert shown["Layers"][0] == "blocks.0.q, k"


def test_the_queued_recipe_ends_with_the_budget_and_keeps_the_rest():
    spec = RunSpec.parse(
        {"model": "builtin:vit", "task": "builtin:digits", "recipe": ["train", *RECIPE], "name": "old"}
    )
    made = with_budget(spec, 2, {"unit": "megabytes", "budget": 1.5})
    assert [step.technique for step in made.recipe] == ["train", "sensitivity", "mixed_precision"]
    assert made.recipe[2].settings == {"unit": "megabytes", "budget": 1.5}
    assert made.recipe[:2] == spec.recipe[:2]
    assert made.name == ""


@pytest.fixture
def run_id(store):
    """A finished run with a sensitivity stage and a mixed one after it."""
    row = {"name": "mixed", "format": "", "predicted": 0.4, "kl": 0.5, **dict.fromkeys(UNITS, 5.0)}
    told = {
        "unit": "average-bits",
        "budget": 6.0,
        "rows": [row, {**row, "name": "uniform", "format": "4-bit", "kl": 0.3}],
    }
    told |= {"wins": False, "verdict": "Mixed precision does not beat uniform 4-bit at this budget."}
    profile = {"rms": 0.5, "outlier_ratio": 6.0, "histogram": [1] * 33}
    profiles = [{"name": "blocks.0.q", "weights": profile, "inputs": profile}]
    with session() as s:
        run = factories.submit(s, recipe=RECIPE)
        details = [{}, {"sensitivity": table().to_json(), "profiles": profiles}, {"allocation": told}]
        for position, each in enumerate(details):
            key = "abc"[position] * 64
            technique = ("source", "sensitivity", "mixed_precision")[position]
            measured = factories.measured(key, details=each, technique=technique)
            stage_id = stages.add_stage(s, measured, key, 1, "0")
            stages.attach_stage(s, run.id, position, stage_id, reused=False, reference_stage_id=None, comparison=None)
        change(s, run.id, status=RunStatus.DONE, started_at=1.0, ended_at=2.0)
        return run.id


def page(run_id) -> AppTest:
    load_choices.clear()
    run_details.load_stages.clear()
    return opened(run_id, tab="Sensitivity")


def test_the_page_tells_whether_mixed_beats_uniform_and_queues_another_budget(run_id):
    at = page(run_id)
    assert "does not beat uniform 4-bit" in at.warning[0].value
    assert at.table[0].value["Choice"].tolist() == ["mixed", "uniform 4-bit"]
    titles = [subheader.value for subheader in at.subheader]
    assert titles == ["Choice at 6.00 bits", "Another budget", "Loss increase by layer and format", "Outliers"]
    at.slider[0].set_value(5.0).run()
    assert not at.exception
    button(at, "Queue 5 bits as a run").click().run()
    assert not at.exception
    with read_session() as s:
        queued = s.get_one(Run, run_id + 1)
        assert queued.spec["recipe"] == [RECIPE[0], {"mixed_precision": {"unit": "average-bits", "budget": 5.0}}]
        assert queued.cloned_from_id == run_id
    links = [link.proto.label for link in at.get("page_link")]
    assert f"Queued as run {run_id + 1}. It reuses the sensitivity table." in links


def test_choices_from_the_same_table_are_found_in_other_runs_too(run_id):
    with session() as s:
        other = factories.submit(s, recipe=RECIPE)
        for position, key in enumerate("abc"):
            stage_id = stages.find_stage_id(s, key * 64)
            stages.attach_stage(s, other.id, position, stage_id, reused=True, reference_stage_id=None, comparison=None)
    with read_session() as s:
        project, stage = s.query(RunStage.project_id, RunStage.stage_id).filter_by(run_id=run_id, position=1).one()
    load_choices.clear()
    (found,) = load_choices(project, stage)
    assert found["run_id"] == run_id
    assert found["rows"][0]["kl"] == 0.5
    assert load_choices(project + 1, stage) == []


def test_a_run_without_a_table_says_what_to_add(store):
    with session() as s:
        run = factories.submit(s)
    at = opened(run.id, tab="Sensitivity")
    assert "Add the step sensitivity" in words(at)

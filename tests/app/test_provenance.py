"""The Provenance page: which runs it draws, and what the chart says of them."""

from pathlib import Path

import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

import app
from app.charts import provenance
from app.charts.provenance_tree import grow
from app.queries.provenance import load_family
from core.store import stages
from core.store.engine import session
from core.store.models import Project, Run, RunStatus
from tests import factories

MAIN = Path(app.__file__).with_name("main.py")


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/provenance/page.py")
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


def rows(at: AppTest, column: str) -> list:
    """The values of a column in the chart's data, of the rows that have it."""
    [chart] = at.get("vega_lite_chart")
    found = []
    for dataset in chart.proto.datasets:
        frame = pa.ipc.open_stream(dataset.data.data).read_pandas()
        if column in frame:
            found += frame[column].tolist()
    return found


def add_run(s, keys, **changes) -> int:
    run = factories.submit(s, **changes)
    for position, key in enumerate(keys):
        stage = factories.measured(key * 64, label=f"stage {key}")
        stage_id = stages.add_stage(s, stage, key, 10, "0")
        stages.attach_stage(s, run.id, position, stage_id, reused=False, reference_stage_id=None, comparison=None)
    run.status = RunStatus.DONE
    s.flush()
    return run.id


@pytest.fixture
def family(store) -> dict[str, int]:
    with session() as s:
        mother = add_run(s, "ab", name="mother")
        child = add_run(s, "cd", name="child", model=f"run:{mother}")
        clone = add_run(s, "ab", name="twin")
        s.get_one(Run, clone).cloned_from_id = mother
        stranger = add_run(s, "ef", name="stranger")
    return {"mother": mother, "child": child, "clone": clone, "stranger": stranger}


def test_an_empty_project_leads_to_submit(store):
    assert "has no runs yet" in opened().info[0].value


def test_all_of_the_newest_are_drawn_each_shared_stage_once(family):
    at = opened()
    labels = [label for label in rows(at, "label") if label.startswith("stage")]
    assert sorted(labels) == ["stage a", "stage b", "stage d", "stage e", "stage f"]
    assert {"4 · stranger", "1 · mother", "2 · child", "3 · twin (clone of 1)"} <= set(rows(at, "label"))
    assert set(rows(at, "shared")) == {"", "2 runs"}


def test_a_named_run_is_drawn_with_its_family_alone(family):
    at = opened(of=str(family["child"]))
    assert "4 · stranger" not in rows(at, "label") and "1 · mother" in rows(at, "label")
    assert [n for n, asked in zip(rows(at, "Run"), rows(at, "asked"), strict=True) if asked] == ["2 · child"]
    assert "model: run 1" in rows(at, "Made from")


def test_words_choose_runs_but_keep_what_they_were_made_from(family):
    labels = rows(opened(words="child"), "label")
    assert {"1 · mother", "2 · child"} <= set(labels) and "3 · twin (clone of 1)" not in labels


def test_what_is_no_run_is_told(family):
    assert "is not a run number" in opened(of="1, x").error[0].value
    assert "has no such run" in opened(of="999").info[0].value
    assert "No runs match" in opened(words="zzz").info[0].value


def test_a_large_family_says_how_much_of_it_is_drawn(store):
    with session() as s:
        mother = add_run(s, "ab")
        for _ in range(60):
            add_run(s, "c", model=f"run:{mother}")
    at = opened(of=str(mother))
    assert "50 of 61 related runs" in at.caption[0].value
    assert len(rows(at, "Run")) == 50
    assert len(rows(opened(of=str(mother), most="100"), "Run")) == 61


def test_runs_of_other_projects_are_not_drawn(family):
    with session() as s:
        other = Project(name="other")
        s.add(other)
        s.flush()
        s.get_one(Run, family["child"]).project_id = other.id
    assert "2 · child" not in rows(opened(of="1,2"), "label")


def test_the_chart_is_valid(family):
    with session() as s:
        taught = add_run(s, "gh", recipe=[{"train": {"methods": [{"distil": {"teacher": "run:1"}}]}}])
    found = load_family(1, (taught,), 50, relatives=True)
    chart = provenance.draw_provenance(grow(found.stages, found.sources), (taught,), "dark")
    drawn = chart.to_dict(validate=True)["layer"]
    assert len(drawn) == 11
    names = next(layer for layer in drawn if layer["encoding"].get("text", {}).get("field") == "label")
    assert names["mark"]["limit"]["expr"].startswith("datum.room / ")  # a name goes on where its row is free

"""The page of one run, in each of its states."""

import base64
import json
import time
from pathlib import Path

import pytest
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

import app
from app.queries import artifacts, run_details
from core.measured import Comparison
from core.store import curves, events, runs, stages, users
from core.store.engine import read_session, session
from core.store.models import FailureClass, Membership, Role, Run, RunStatus, Stage
from tests import factories
from tests.app import redirects

MAIN = Path(app.__file__).with_name("main.py")
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def run_id(store):
    """A finished run: an untrained source, a trained reference and a stage that no kernel times."""
    with session() as s:
        run = factories.submit(s, name="small one")
        for position, (key, changes) in enumerate(
            {
                "a": {"label": "builtin:vit", "trained": False, "compressed": False},
                "b": {"label": "train 20 updates", "compressed": False, "size_bytes": 4_000_000, "nominal_bits": 32},
                "c": {"label": "rtn 8-bit", "details": {"layers": [{"name": "head", "sparsity": 0.25}]}},
            }.items()
        ):
            stage_id = stages.add_stage(s, factories.measured(key * 64, **changes), f"{key * 2}/{key * 64}", 1_001, "0")
            reference = stages.find_stage_id(s, "b" * 64)
            stages.attach_stage(
                s,
                run.id,
                position,
                stage_id,
                reused=False,
                reference_stage_id=reference,
                comparison=Comparison(-0.5, -1.0, 0.1, 0.2) if key == "c" else None,
            )
            if key == "b":
                stages.set_latencies(s, run.id, stage_id, [factories.latency(ratio=None)], reference)
        curves.add_points(s, run.id, [("1/loss", i, 2.0 - i / 10) for i in range(10)])
        events.add_events(s, run.id, 1, [(time.time(), "info", "began"), (time.time(), "error", "it broke")])
        change(s, run.id, status=RunStatus.DONE, started_at=1000.0, ended_at=1060.0, attempt=1)
        return run.id


def cells(at: AppTest, index: int):
    """What one of the page's tables says, wherever its lines break."""
    return at.table[index].value.map(lambda text: text.replace("\N{NO-BREAK SPACE}", " "))


def change(s, run_id: int, **values) -> None:
    s.execute(update(Run).where(Run.id == run_id).values(values))


def opened(run_id: int | str, **query: str) -> AppTest:
    run_details.load_run.clear()
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/run/page.py")
    at.query_params.update({"run": str(run_id), **query})
    at.run()
    assert not at.exception
    return at


def words(at: AppTest) -> str:
    """All text of the page."""
    kinds = ("title", "markdown", "caption", "info", "warning", "error", "success", "code")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(at, kind))


def button(at: AppTest, label: str):
    return next(b for b in at.button if b.label == label)


@pytest.mark.parametrize("number", ["", "77", "x"])
def test_a_run_that_is_not_there_leads_to_all_runs(store, number):
    assert "no run" in words(opened(number)).lower()


def test_runs_of_another_project_are_not_shown(run_id):
    assert run_details.load_run(run_id, 999) is None


def test_stages_stand_in_order_with_what_they_came_to(run_id):
    at = opened(run_id)
    table = cells(at, 0)
    assert list(table["Stage"]) == ["0 · builtin:vit", "1 · train 20 updates", "2 · rtn 8-bit"]
    assert table["Size"][2] == "1.00 MB (4.00× smaller)"
    assert table["Score vs reference"].tolist() == [
        "–",
        "reference",
        "−0.5 points, not significant (p = 0.200)",
    ]
    assert table["p50 / p95"].tolist() == ["–", "2.00 ms / 2.40 ms", "size only (no kernel on this worker)"]
    assert not any("disturbed" in caption.value for caption in at.caption)
    assert [metric.value for metric in at.metric] == ["1.00 MB", "95.0 %", "–", "4.00 MB"]


def test_a_time_on_a_disturbed_machine_is_marked_wherever_it_stands(run_id):
    with session() as s:
        last = stages.find_stage_id(s, "c" * 64)
        rows = [factories.latency(p50_ms=1.0, ratio=0.5, ratio_low=0.4, ratio_high=0.6, disturbed=True)]
        stages.set_latencies(s, run_id, last, rows, stages.find_stage_id(s, "b" * 64))
    at = opened(run_id)
    assert cells(at, 0)["p50 / p95"].tolist()[2].endswith(" ms (disturbed)")
    card = at.metric[2]
    assert card.delta == "2.00× faster (disturbed)"
    assert card.proto.color == card.proto.MetricColor.GRAY
    assert any("Requeue the run on an idle machine" in caption.value for caption in at.caption)
    assert any(caption.value.startswith("Pale: disturbed") for caption in at.caption)


def test_labels_are_drawn_as_written_in_tables(run_id):
    with session() as s:
        s.execute(update(Stage).where(Stage.key == "c" * 64).values(label="*rtn* 8-bit"))
    assert cells(opened(run_id), 0)["Stage"][2] == r"2 · \*rtn\* 8-bit"


def test_a_reference_from_elsewhere_stands_before_the_stages(run_id):
    with session() as s:
        stage_id = stages.add_stage(s, factories.measured("d" * 64, label="dense"), "dd/d", 1, "0")
        stages.attach_stage(s, run_id, -1, stage_id, reused=True, reference_stage_id=stage_id, comparison=None)
    at = opened(run_id)
    assert cells(at, 0)["Stage"][0] == "reference · dense"
    assert any("not a step of this run" in caption.value for caption in at.caption)


def test_claims_stand_against_what_was_measured(run_id):
    claims = cells(opened(run_id), 1)
    assert claims["Verdict"].tolist() == ["size only (no kernel on this worker)"]


def test_a_running_run_shows_progress_and_can_be_cancelled(run_id, monkeypatch):
    with session() as s:
        change(s, run_id, status=RunStatus.RUNNING, progress=0.4, progress_text="train: update 8", seconds_left=90.0)
    at = opened(run_id)
    assert "train: update 8 · about 1 min 30 s left" in at.get("progress")[0].proto.text
    button(at, "Cancel").click().run()
    with read_session() as s:
        assert s.get_one(Run, run_id).cancel_requested
    assert button(at, "Cancel").disabled


def test_a_queued_run_says_what_it_waits_for(run_id):
    with session() as s:
        change(s, run_id, status=RunStatus.QUEUED, device="gpu")
    assert "Waiting for a worker with a GPU" in words(opened(run_id))


@pytest.mark.parametrize("failure", list(FailureClass))
def test_a_failure_comes_with_its_class_message_and_remedy(run_id, failure):
    with session() as s:
        change(s, run_id, status=RunStatus.FAILED, failure=failure, failure_message="it broke here")
    text = opened(run_id).error[0].value
    assert failure.value in text and "It broke here" in text and len(text.splitlines()[-1]) > 20


def test_requeue_and_rename(run_id, store):
    at = opened(run_id)
    button(at, "Requeue").click().run()
    at.text_input[0].set_value("another name")
    next(b for b in at.button if b.label == "Rename" and b.form_id).click().run()
    with read_session() as s:
        run = s.get_one(Run, run_id)
        assert (run.status, run.name) == (RunStatus.QUEUED, "another name")
    assert store == ["any"]


def test_viewers_only_look(run_id):
    with session() as s:
        user = users.enrol(s, users.LOCAL_USER)
        s.get_one(Membership, (user.id, 1)).role = Role.VIEWER
    at = opened(run_id)
    assert button(at, "Requeue").disabled and button(at, "Clone and edit").disabled


def test_curves_are_grouped_by_step(run_id):
    at = opened(run_id, tab="Curves")
    assert any("1 · train 20 updates" in markdown.value for markdown in at.markdown)
    assert len(at.get("vega_lite_chart")) + len(at.get("arrow_vega_lite_chart")) == 1


def test_an_old_link_to_a_tab_is_put_right(run_id):
    old = redirects.asked(opened(run_id, show="Spec"))
    assert old == {"address": f"run?run={run_id}&tab=Spec", "set": {}, "replace": True}
    assert redirects.asked(opened(run_id, show="nonsense")) is None


def test_the_log_is_filtered_by_level(run_id):
    at = opened(run_id, tab="Log")
    assert "began" in at.code[0].value and "it broke" in at.code[0].value
    at.button_group(key="levels").set_value(["error"]).run()
    assert "began" not in at.code[0].value and "it broke" in at.code[0].value


def test_layers_are_told(run_id):
    table = opened(run_id, tab="Layers").dataframe[0].value
    assert table.to_dict("records") == [{"Layer": "head", "Sparsity": "25.00 %"}]


def test_calibration_is_told_with_the_layers(run_id):
    rows = [{"name": "head", "tokens": 40, "inputs": 8, "dead inputs": 3, "outlier ratio": 2.0}]
    coverage = {"examples": {"task": 16}, "tokens": 40, "layers": rows}
    with session() as s:
        s.execute(update(Stage).where(Stage.label == "rtn 8-bit").values(details={"calibration": coverage}))
    at = opened(run_id, tab="Layers")
    assert any("calibrated with 16 examples of task, 40 tokens" in expander.label for expander in at.expander)
    assert at.dataframe[0].value.to_dict("records")[0]["Dead inputs"] == 3
    assert "3 input channels stayed zero" in words(at)


def test_mistakes_of_embeddings_name_the_unit_of_their_loss(run_id):
    folder = Path(artifacts.store().root) / artifacts.store().address("c" * 64)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    item = {"index": 3, "text": "moved", "label": "", "nats": 0.25, "reference_nats": 0.0, "unit": "1 - cosine"}
    (folder / f"mistakes-{'b' * 64}.json").write_text(json.dumps([item]))
    (row,) = opened(run_id, tab="Regressions").dataframe[0].value.to_dict("records")
    assert row == {"Text": "moved", "Loss (1 - cosine)": "0.250", "Reference loss (1 - cosine)": "0"}


def test_mistakes_show_what_the_reference_knew(run_id):
    folder = Path(artifacts.store().root) / artifacts.store().address("c" * 64)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    item = {"index": 3, "image": base64.b64encode(PIXEL).decode(), "label": "7", "predicted": 1}
    losses = {"reference_predicted": 7, "nats": 2.5, "reference_nats": 0.01}
    (folder / f"mistakes-{'b' * 64}.json").write_text(json.dumps([{**item, **losses}]))
    text = words(opened(run_id, tab="Regressions"))
    assert "**7**, predicted **1**" in text and "2.50 nats, was 0.0100" in text


def test_mistakes_whose_artifact_is_gone_are_not_promised(run_id):
    assert "no longer on this host" in words(opened(run_id, tab="Regressions"))


def test_the_spec_can_be_pasted_and_the_environment_read(run_id):
    with session() as s:
        change(s, run_id, environment={"torch": "2.13.0", "hardware": "Example CPU"}, compute_seconds=75.0)
    at = opened(run_id, tab="Spec")
    assert "source: builtin:vit" in at.code[0].value
    rows = at.table[0].value.iloc[:, -1].to_dict()
    assert rows["Hardware"] == "Example CPU" and rows["Torch"] == "2.13.0" and rows["Compute time"] == "1 min 15 s"


def test_artifacts_come_with_the_lines_that_load_them(run_id):
    at = opened(run_id, tab="Artifacts")
    assert f'Path("run-{run_id}-stage-2")' in at.code[0].value
    links = [element.proto.url for element in at.get("link_button")]
    assert [link.partition("/")[0] for link in links] == ["bundle", "artifact", "artifact", "artifact"]


def test_a_tag_is_taken_off_again(run_id):
    at = opened(run_id, tab="Notes")
    next(field for field in at.text_input if field.label == "Add a tag").set_value("ship")
    button(at, "Add tag").click().run()
    at.button(key="untag ship").click().run()
    with read_session() as s:
        assert runs.list_tags(s, run_id) == [] and not at.exception


def test_notes_and_tags_are_added(run_id):
    at = opened(run_id, tab="Notes")
    at.text_area[0].set_value("worth shipping")
    button(at, "Add").click().run()
    assert any("worth shipping" in block.proto.body for block in at.get("html"))

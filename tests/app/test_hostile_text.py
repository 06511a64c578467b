"""What users wrote reaches no page as Markdown: no picture, link, formula or colour of theirs is drawn."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

import app
from app import artifacts, data, run_data
from core.measured import Comparison
from core.store import points, runs, stages, users, workers
from core.store.engine import session
from core.store.models import FailureClass, Run, RunNeed, RunStatus
from tests import factories

MAIN = Path(app.__file__).with_name("main.py")
HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://example.org/i.png) **b** :red[x] $x$"
FORMS = ("<script>", "</script>", "[x](", "![i]", "**b**", ":red[", "$x$")
ESCAPED = r"\<script\>alert(1)\</script\> \[x\](javascript:alert(1)) !\[i\]("


@pytest.fixture
def run_id(store):
    """A failed run with hostile text wherever a user, a model, a data set or a worker can put any."""
    with session() as s:
        run = factories.submit(s, name=HOSTILE)
        worker = workers.register_worker(s, HOSTILE, "cpu", hardware={}, offers={}, provides=["cpu"])
        for position, key in enumerate("ab"):
            stage = factories.measured(key * 64, label=HOSTILE, model=HOSTILE, task=HOSTILE, compressed=key == "b")
            stage_id = stages.add_stage(s, stage, f"{key * 2}/{key * 64}", 1_001, "0")
            reference = stages.find_stage_id(s, "a" * 64)
            comparison = Comparison(-0.5, -1.0, 0.1, 0.2) if key == "b" else None
            stages.attach_stage(
                s, run.id, position, stage_id, reused=False, reference_stage_id=reference, comparison=comparison
            )
            timed = [factories.latency(hardware=HOSTILE, software=HOSTILE)]
            stages.set_latencies(s, run.id, stage_id, timed, reference)
        points.add_points(s, run.id, [(f"1/{HOSTILE}", i, 2.0 - i / 10) for i in range(3)])
        runs.add_tag(s, run.id, HOSTILE)
        runs.add_note(s, run.id, users.enrol(s, HOSTILE).id, f"first line\n{HOSTILE}")
        written = {
            "environment": {HOSTILE: HOSTILE},
            "model": HOSTILE,
            "task": HOSTILE,
            "recipe": HOSTILE,
            "progress_text": HOSTILE,
        }
        failed = {"status": RunStatus.FAILED, "failure": FailureClass.TECHNIQUE, "failure_message": HOSTILE}
        change(s, run.id, worker_id=worker, started_at=1000.0, attempt=1, **written, **failed)
        found: int = run.id
    _keep_mistakes()
    return found


def change(s, run_id: int, **values) -> None:
    s.execute(update(Run).where(Run.id == run_id).values(values))


def _keep_mistakes() -> None:
    folder = Path(artifacts.store().root) / artifacts.store().address("b" * 64)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    picture = io.BytesIO()
    Image.new("L", (1, 1)).save(picture, "PNG")
    item = {"index": 3, "image": base64.b64encode(picture.getvalue()).decode(), "label": HOSTILE, "predicted": HOSTILE}
    losses = {"reference_predicted": HOSTILE, "nats": 2.5, "reference_nats": 0.01}
    (folder / f"mistakes-{'a' * 64}.json").write_text(json.dumps([{**item, **losses}]))


def opened(page: str, **query: str) -> AppTest:
    run_data.load_run.clear()
    data.load_queue.clear()
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page(page)
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


def markdown(at: AppTest) -> str:
    """All that the page has Streamlit read as Markdown."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "success")
    texts = [str(element.value) for kind in kinds for element in getattr(at, kind)]
    texts += [element.proto.text for element in at.get("progress")]
    texts += [element.proto.label for kind in ("page_link", "metric", "expander") for element in at.get(kind)]
    texts += [str(cell) for table in at.table for cell in table.value.reset_index().to_numpy().flatten()]
    return "\n".join(texts)


def assert_drawn_as_written(at: AppTest, times: int = 1) -> None:
    """No form of markup is left once every escaped character is taken out, and the text is there to be seen."""
    text = markdown(at)
    bare = re.sub(r"\\.", "", text)
    assert not [form for form in FORMS if form in bare]
    assert text.count(ESCAPED) >= times


@pytest.mark.parametrize(
    ("tab", "times"), [("Stages", 8), ("Curves", 8), ("Mistakes", 9), ("Spec", 10), ("Artifacts", 9), ("Notes", 9)]
)
def test_the_page_of_a_run(run_id, tab, times):
    assert_drawn_as_written(opened("screens/run.py", run=str(run_id), show=tab), times)


@pytest.mark.parametrize("page", ["screens/run.py", "screens/queue.py"])
def test_a_running_run(run_id, page):
    with session() as s:
        change(s, run_id, status=RunStatus.RUNNING)
    assert_drawn_as_written(opened(page, run=str(run_id)), 3)


@pytest.mark.parametrize("page", ["screens/run.py", "screens/queue.py"])
def test_a_queued_run_and_what_it_waits_for(run_id, page):
    with session() as s:
        s.add(RunNeed(run_id=run_id, need=HOSTILE))
        change(s, run_id, status=RunStatus.QUEUED)
    at = opened(page, run=str(run_id))
    assert_drawn_as_written(at, 5)
    assert r"that provides \<script\>" in markdown(at)


def test_the_runs(run_id):
    assert_drawn_as_written(opened("screens/runs.py"), 0)


def test_the_recommendation_of_the_trade_offs(run_id):
    at = opened("screens/tradeoffs.py")
    next(widget for widget in at.number_input if widget.label.startswith("Size at most")).set_value(5.0).run()
    assert_drawn_as_written(at, 2)

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
from app.queries import artifacts, run_details
from app.queries.runs import load_queue
from core.store.engine import session
from core.store.models import Run, RunNeed, RunStatus
from tests import hostile

MAIN = Path(app.__file__).with_name("main.py")
HOSTILE = hostile.TEXT
FORMS = ("<script>", "</script>", "[x](", "![i]", "**b**", ":red[", "$x$")
ESCAPED = r"\<script\>alert(1)\</script\> \[x\](javascript:alert(1)) !\[i\]("


@pytest.fixture
def run_id(store):
    """A failed run with hostile text wherever a user, a model, a data set or a worker can put any."""
    with session() as s:
        found = hostile.add_run(s)
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
    run_details.load_run.clear()
    load_queue.clear()
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
    ("tab", "times"), [("Stages", 8), ("Curves", 8), ("Regressions", 9), ("Spec", 10), ("Artifacts", 9), ("Notes", 8)]
)
def test_the_page_of_a_run(run_id, tab, times):
    assert_drawn_as_written(opened("screens/run/page.py", run=str(run_id), tab=tab), times)


@pytest.mark.parametrize("page", ["screens/run/page.py", "screens/queue/page.py"])
def test_a_running_run(run_id, page):
    with session() as s:
        change(s, run_id, status=RunStatus.RUNNING)
    assert_drawn_as_written(opened(page, run=str(run_id)), 3)


@pytest.mark.parametrize("page", ["screens/run/page.py", "screens/queue/page.py"])
def test_a_queued_run_and_what_it_waits_for(run_id, page):
    with session() as s:
        s.add(RunNeed(run_id=run_id, need=HOSTILE))
        change(s, run_id, status=RunStatus.QUEUED)
    at = opened(page, run=str(run_id))
    assert_drawn_as_written(at, 5)
    assert r"that provides \<script\>" in markdown(at)


def test_the_runs(run_id):
    assert_drawn_as_written(opened("screens/runs/page.py"), 0)


def test_the_recommendation_of_the_trade_offs(run_id):
    at = opened("screens/tradeoffs/page.py", most_mb="5")
    assert_drawn_as_written(at, 2)


def test_a_note_is_html_without_anything_that_runs_or_loads(run_id):
    blocks = [block.proto.body for block in opened("screens/run/page.py", run=str(run_id), tab="Notes").get("html")]
    [note] = [body for body in blocks if 'class="written"' in body]
    assert not re.search(r"<(script|img)\b|href=.javascript", note) and "&lt;script&gt;" in note
    assert "<strong>b</strong>" in note and "$x$" in note


@pytest.mark.parametrize("page", ["runs", "tradeoffs", "compare", "provenance"])
def test_the_menu_of_views(run_id, page):
    query = {"runs": f"{run_id},{run_id}.0"} if page == "compare" else {}
    at = opened(f"screens/{page}/page.py", **query)
    at.session_state[f"views of {page}"] = True
    at.run()
    assert_drawn_as_written(at, 1 if page == "runs" else 0)


def test_the_tree(run_id):
    assert_drawn_as_written(opened("screens/provenance/page.py", of=str(run_id)), 0)

"""Reports: written, read with the board's views in them, exported, and by whom."""

from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import app
from app.actions import reports as actions
from app.actions import runs as board
from app.actions import views
from app.exports.document import Written, document
from app.screens.reports import tradeoffs
from app.screens.reports.parser import Embedded
from app.screens.reports.render import NotShownError, draw
from core.store import reports, users
from core.store.engine import read_session, session
from core.store.models import Role
from core.store.reports import ChangedMeanwhileError
from tests import factories, hostile
from tests.actors import actor

MAIN = Path(app.__file__).with_name("main.py")
PROJECT = 1


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/reports/page.py")
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


@pytest.fixture
def people(store) -> dict[str, int]:
    with session() as s:
        found = {name: users.enrol(s, name).id for name in (users.LOCAL_USER, "member", "viewer", "stranger")}
        factories.fill_store(s, 60)
        users.set_role(s, found["member"], PROJECT, Role.MEMBER)
        users.set_role(s, found["viewer"], PROJECT, Role.VIEWER)
    return found


def add(people, text: str, title: str = "Which to ship") -> int:
    number = actions.add_report(actor(people["local"], PROJECT), title)
    actions.change_report(actor(people["local"]), number, 1, title, text)
    return number


def kept(number: int):
    with read_session() as s:
        return reports.read_report(s, PROJECT, number)


def button(at: AppTest, label: str):
    return next(button for button in at.button if button.label == label)


def test_a_new_report_is_written_and_read(people):
    at = opened()
    assert "No reports yet" in at.info[0].value
    button(at, "New report").click().run()
    number = int(at.query_params["report"][0])
    at.text_input[0].set_value(" Which  to ship ")
    at.text_area[0].set_value("# Why\n\n**Because**")
    button(at, "Save").click().run()
    assert not at.exception
    assert (kept(number).title, kept(number).text) == ("Which to ship", "# Why\n\n**Because**")
    assert at.title[0].value == "Which to ship"
    assert any("<strong>Because</strong>" in block.proto.body for block in at.get("html"))
    assert [link.proto.label for link in opened().get("page_link")] == ["Which to ship"]


def test_a_saved_view_is_put_into_the_text(people):
    view = views.save_view(actor(people["local"], PROJECT), "compare", "two", "runs=1%2C3")
    number = add(people, "First.")
    at = opened(report=str(number), edit="yes")
    at.selectbox(key="inserted").set_value(view).run()
    assert at.text_area[0].value == "First.\n\n{{compare?runs=1%2C3}}\n"
    button(at, "Save").click().run()
    assert kept(number).text == "First.\n\n{{compare?runs=1%2C3}}\n"


def test_views_are_drawn_where_they_stand(people):
    text = (
        "{{compare?runs=1,3}}\n\n{{tradeoffs?points_of=builtin:digits}}\n\n{{provenance?of=1}}\n\n{{runs?sort=oldest}}"
    )
    at = opened(report=str(add(people, text)))
    assert len(at.get("vega_lite_chart")) == 2 and not at.warning
    compared, runs = (table.value for table in at.table)
    assert compared["Stage"][0].endswith("(base)") and len(compared) == 2
    assert all(time.endswith("ms") for time in compared["Latency p50"])
    assert any(caption.value.startswith("Latency conditions: forward") for caption in at.caption)
    assert list(runs["Run"])[:3] == ["1", "2", "3"] and len(runs) == 50
    assert any("first 50 of 60 runs" in caption.value for caption in at.caption)


def test_a_view_that_cannot_be_shown_says_why_and_the_rest_is_there(people):
    text = "{{compare?runs=x}}\n{{compare?runs=1}}\n{{provenance?of=}}\n{{runs?text=zzz}}\nEnd."
    at = opened(report=str(add(people, text)))
    assert len(at.warning) == 4
    assert any("End." in block.proto.body for block in at.get("html"))


def test_the_chart_follows_limits_and_scales_of_the_address(people):
    plain = tradeoffs.draw_chart({"points_of": "builtin:digits"}, PROJECT).to_dict()
    settings = {"points_of": "builtin:digits", "most_mb": "1.5", "log.size_bytes": "false", "x": "Size"}
    limited = tradeoffs.draw_chart(settings, PROJECT).to_dict()
    assert len(limited["layer"]) == len(plain["layer"]) + 2  # the shade and its edge
    scales = [str(chart["layer"]).count("'type': 'log'") for chart in (plain, limited)]
    assert scales[0] > 0 and scales[1] == 0


def test_nobody_overwrites_a_text_that_they_did_not_see(people):
    number = add(people, "mine")
    at = opened(report=str(number), edit="yes")
    at.text_area[0].set_value("theirs")
    actions.change_report(actor(people["member"]), number, 2, "Which to ship", "meanwhile")
    button(at, "Save").click().run()
    assert "since you opened it" in at.error[0].value and at.text_area[0].value == "theirs"
    assert kept(number).text == "meanwhile"
    with pytest.raises(ChangedMeanwhileError):
        actions.change_report(actor(people["local"]), number, 2, "x", "y")


def test_who_may_write_and_delete(people):
    for who in ("viewer", "stranger"):
        with pytest.raises(board.NotAllowed):
            actions.add_report(actor(people[who], PROJECT), "x")
    number = actions.add_report(actor(people["local"], PROJECT), "x")
    with pytest.raises(board.NotAllowed):
        actions.change_report(actor(people["viewer"]), number, 1, "x", "y")
    with pytest.raises(board.NotAllowed, match="belongs to someone else"):
        actions.delete_report(actor(people["member"]), number)
    of_member = actions.add_report(actor(people["member"], PROJECT), "y")
    actions.delete_report(actor(people["local"]), of_member)
    with pytest.raises(board.NotAllowed):
        actions.delete_report(actor(people["local"]), of_member)


def test_a_report_of_another_project_is_not_there(people):
    assert "This project has no report 99" in opened(report="99").info[0].value


def test_a_documents_texts_are_no_html():
    page = document(hostile.TEXT, [pd.DataFrame({hostile.TEXT: [hostile.TEXT]}), Written("<p>as it is</p>")]).decode()
    assert page.count("<script>alert") == 0 and page.count("&lt;script&gt;alert") == 4
    assert "<p>as it is</p>" in page


def test_what_names_nothing_is_refused_in_words(people):
    with pytest.raises(NotShownError, match="is not a run or stage"):
        draw(Embedded("compare", "runs=1;x"), PROJECT)

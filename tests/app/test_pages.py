"""The catalogue and the state of the installation, as pages."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app.screens.system import checks
from app.text import workers as worker_words
from core.store import workers
from core.store.engine import session
from tests.app.catalogues import CATALOGUE

MAIN = Path(app.__file__).with_name("main.py")
NO_TROUBLE = {
    "queue": checks.Queue(ping_ms=0.2),
    "disk": checks.Disk("/artifacts", free_bytes=10**12, total_bytes=10**13),
    "revision": ("0002", "0002"),
    "workers": [{"name": "host-cpu-1", "lost": False, "stopped_at": None, "age": 1.0}],
    "waiting": {},
}


@pytest.fixture
def catalogue(store, monkeypatch):
    monkeypatch.setattr("app.queries.catalogue.built_in", lambda: CATALOGUE)


def opened(page: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page(f"screens/{page}/page.py")
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


def techniques(at: AppTest) -> list[str]:
    """Names of the shown techniques, in their order."""
    return [expander.label.split("**")[1] for expander in at.expander]


def test_every_technique_is_listed_with_its_settings_below_its_family(catalogue):
    at = opened("techniques")
    families = sorted({entry["family"] for entry in CATALOGUE.techniques.values()})
    members = {f: [n for n, entry in CATALOGUE.techniques.items() if entry["family"] == f] for f in families}
    assert [head.value for head in at.subheader] == [f"{f.capitalize()} ({len(members[f])})" for f in families]
    assert techniques(at) == [name for names in members.values() for name in names]
    rows = next(table.value for table in at.table if "bits" in set(table.value["Setting"]))
    assert dict(rows.iloc[0]) == {
        "Setting": "bits",
        "Default": "8",
        "Values": "2 to 8",
        "Description": "bits per weight",
    }
    assert list(rows.set_index("Setting").loc[["symmetric", "group_size"], "Default"]) == ["yes", "the row"]


def test_search_narrows_the_list(catalogue):
    at = opened("techniques")
    at.text_input[0].set_value("DIST").run()
    assert techniques(at) == ["distill_logits"]
    at.text_input[0].set_value("nothing like it").run()
    assert "No techniques match" in at.info[0].value


def test_families_without_a_technique_that_is_left_are_not_headed(catalogue):
    at = opened("techniques")
    at.button_group[0].set_value(["quantization"]).run()
    assert techniques(at) == ["rtn"]
    assert [head.value for head in at.subheader] == ["Quantization (1)"]


def test_a_link_to_a_technique_shows_it_first_and_opened_unless_others_are_searched(catalogue):
    at = opened("techniques", technique="sr_ste")
    assert techniques(at)[0] == "sr_ste" and techniques(at).count("sr_ste") == 1
    assert [expander.proto.expanded for expander in at.expander[:2]] == [True, False]
    at.text_input[0].set_value("t").run()
    assert "sr_ste" in techniques(at)[1:]


def test_workers_that_offer_the_technique_as_it_is_listed(catalogue):
    with session() as s:
        for name, digest in (("host-cpu-1", "rtn"), ("host-cpu-2", "another schema")):
            workers.register_worker(s, name, "cpu", hardware={}, offers={"technique:rtn": digest}, provides=["cpu"])
    at = opened("techniques")
    rtn = at.expander[list(CATALOGUE.techniques).index("rtn")]
    assert any("Runs on host-cpu-1." in caption.value for caption in rtn.caption)


def test_the_system_page_says_what_is_wrong(store):
    at = opened("system")
    assert any("No worker is running" in error.value for error in at.error)
    assert any("Redis is unreachable" in warning.value for warning in at.warning)


def test_all_is_well():
    assert checks.find_troubles(**NO_TROUBLE) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"revision": ("0001", "0002")}, "schema is 0001"),
        ({"workers": []}, "No worker"),
        ({"workers": [{"name": "w", "lost": True, "stopped_at": None, "age": 90.0}]}, "not been seen for 1 min 30 s"),
        ({"queue": checks.Queue(error="refused")}, "refused"),
        ({"disk": checks.Disk("/", free_bytes=10**9, total_bytes=10**12)}, "1.00 GB"),
        ({"waiting": {7: "a worker with a GPU"}}, "Run 7 is waiting for a worker with a GPU"),
    ],
)
def test_each_trouble_is_named_with_its_remedy(changed, words):
    found = checks.find_troubles(**{**NO_TROUBLE, **changed})
    assert any(words in trouble.what for trouble in found)
    assert all(trouble.remedy for trouble in found)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "idle"),
        ({"run_id": 12, "run_progress": 0.4}, "run 12 (40 %)"),
        ({"stopped_at": 1.0}, "–"),
        ({"lost": True}, "–"),
    ],
)
def test_only_a_worker_that_runs_is_idle(changed, words):
    worker = {"run_id": None, "run_progress": None, "stopped_at": None, "lost": False}
    assert worker_words.describe_activity({**worker, **changed}) == words


def test_the_schema_is_told_beside_what_this_version_needs():
    assert checks.describe_schema("0007", "0007") == "0007 (current)"
    assert checks.describe_schema(None, "0007") == "empty (this version needs 0007)"


def test_an_unreachable_queue_is_told_and_not_raised(tmp_path):
    assert checks.ask_queue(f"redis+socket://{tmp_path}/none.sock").error

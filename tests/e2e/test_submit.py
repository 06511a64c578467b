"""Submitting a run in a real browser."""

import re

import numpy as np
import pytest
import safetensors.numpy
from playwright.sync_api import Page, expect
from sqlalchemy import select

from core.spec.model import RunSpec
from core.store.engine import read_session
from core.store.models import Run, RunStatus

pytestmark = pytest.mark.browser

RTN = """
name: from the browser
model: {source: builtin:vit, dim: 32, depth: 2}
task: builtin:digits
recipe:
- train: {steps: 20}
- rtn: {bits: 4}
measure: {repeats: 5, memory: false}
"""


def open_submit(page: Page, url: str) -> None:
    page.goto(f"{url}/submit")
    expect(page.get_by_role("heading", name="Submit a run")).to_be_visible(timeout=60_000)


def type_yaml(page: Page, text: str) -> None:
    field = page.get_by_label("YAML", exact=True).first
    field.fill(text)
    field.press("Control+Enter")


def yaml_of(page: Page) -> str:
    expect_yaml(page, "version: 1")
    return page.get_by_label("YAML", exact=True).first.input_value()


def expect_yaml(page: Page, words: str) -> None:
    expect(page.get_by_label("YAML", exact=True).first).to_have_value(re.compile(re.escape(words)))


def test_a_page_opened_by_its_address_has_the_whole_navigation(page, server):
    foreign = []
    page.on("request", lambda request: foreign.append(request.url) if "127.0.0.1" not in request.url else None)
    open_submit(page, server.url)
    for title in ("Queue", "Runs", "Trade-offs", "Techniques", "System"):
        expect(page.get_by_test_id("stSidebarNav").get_by_role("link", name=title)).to_be_visible()
    assert [url for url in foreign if url.startswith("http")] == []  # works without the internet


def test_form_and_yaml_stay_in_step_and_the_run_is_queued(page, server):
    open_submit(page, server.url)
    type_yaml(page, RTN)
    expect_yaml(page, "version: 1")  # as the form writes it: both have taken it up
    page.get_by_text("2 · rtn").click()
    bits = page.get_by_role("spinbutton", name=re.compile("^bits"))
    bits.fill("3")
    bits.press("Enter")
    expect_yaml(page, "bits: 3")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_text(re.compile(r"Run \d+ is queued"))).to_be_visible()
    with read_session(server.store_url) as s:
        run = s.scalars(select(Run).where(Run.name == "from the browser")).one()
        assert RunSpec.parse(run.spec).recipe[1].settings == {"bits": 3}
        assert run.status == RunStatus.QUEUED
    page.get_by_role("link", name=f"Open run {run.id}").last.click()
    expect(page).to_have_url(re.compile(rf"/run\?run={run.id}$"))


def test_a_number_out_of_range_is_not_dropped_but_refused(page, server):
    open_submit(page, server.url)
    type_yaml(page, RTN)
    expect_yaml(page, "version: 1")
    page.get_by_text("2 · rtn").click()
    bits = page.get_by_role("spinbutton", name=re.compile("^bits"))
    bits.fill("99")
    bits.press("Enter")
    expect_yaml(page, "bits: 99")
    expect(page.get_by_text("Must be at most 8").first).to_be_visible()
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_disabled()
    page.get_by_label("Seed", exact=True).fill("-1")
    page.get_by_label("Seed", exact=True).press("Enter")
    expect_yaml(page, "seed: -1")


def test_a_mistake_is_told_at_its_field_and_blocks_submitting(page, server):
    open_submit(page, server.url)
    type_yaml(page, RTN.replace("bits: 4", "bits: 40"))
    expect(page.get_by_text("Must be at most 8").first).to_be_visible()
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_disabled()


def test_a_preset_fills_the_form(page, server):
    open_submit(page, server.url)
    page.get_by_role("combobox", name="Start from a preset").fill("Sliding-window")  # the list is long
    page.get_by_role("option", name="Sliding-window language model").click()
    expect_yaml(page, "sliding_window")
    expect(page.get_by_text("2 · sliding_window")).to_be_visible()


def test_clone_and_edit_starts_from_the_earlier_run(page, server):
    with read_session(server.store_url) as s:
        earlier = s.scalars(select(Run).order_by(Run.id)).first()
    assert earlier is not None
    page.goto(f"{server.url}/submit?clone={earlier.id}")
    expect(page.get_by_text(f"Cloned from run {earlier.id}")).to_be_visible(timeout=60_000)
    assert RunSpec.from_yaml(yaml_of(page)).hash == RunSpec.parse(earlier.spec).hash


def upload(page: Page, title: str, *files: tuple[str, bytes]) -> None:
    """Choose files and wait until the browser has sent them."""
    form = page.get_by_test_id("stExpander").filter(has_text=title)
    given = [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files]
    form.locator("input[type=file]").set_input_files(given)
    for name, _ in files:
        expect(form.get_by_title(name, exact=True)).to_be_visible()


def test_uploaded_data_is_previewed_and_becomes_the_task(page, server):
    open_submit(page, server.url)
    table = "text,label\n" + "".join(f"example number {i},{'good' if i % 2 else 'bad'}\n" for i in range(60))
    page.get_by_text("Upload data").click()
    upload(page, "Upload data", ("reviews.csv", table.encode()))
    page.get_by_role("button", name="Use this data").click()
    expect_yaml(page, "reviews.csv")
    page.get_by_text("Preview the data").click()
    expect(page.get_by_text("Text classification")).to_be_visible()
    expect(page.get_by_text("2 classes: bad (30), good (30)")).to_be_visible()


def test_an_uploaded_model_becomes_the_source_and_pickles_are_refused(page, server):
    open_submit(page, server.url)
    weights = safetensors.numpy.save({"weight": np.zeros((2, 2), np.float32)})
    page.get_by_text("Upload a model").click()
    upload(page, "Upload a model", ("pytorch_model.bin", b"pickled"))
    page.get_by_role("button", name="Use this model").click()
    expect(page.get_by_text("can run code when it is loaded")).to_be_visible()
    page.get_by_role("button", name="Remove pytorch_model.bin").click()
    upload(page, "Upload a model", ("config.json", b'{"model_type": "gpt2"}'), ("model.safetensors", weights))
    page.get_by_role("button", name="Use this model").click()
    expect_yaml(page, "source: hf:")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_submitted_run_is_executed_by_the_embedded_stack(page, stack):
    open_submit(page, stack.url)
    type_yaml(page, RTN)
    expect(page.get_by_text("This recipe is compatible with the model")).to_be_visible(timeout=120_000)
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_text("Run 1 is queued")).to_be_visible()
    page.get_by_role("link", name="Open run 1").click()
    expect(page).to_have_url(re.compile(r"/run\?run=1$"))
    ended = (RunStatus.DONE, RunStatus.FAILED)
    while status_of_first(stack.store_url) not in ended:  # the test's timeout ends it
        page.wait_for_timeout(1000)
    assert status_of_first(stack.store_url) == RunStatus.DONE


def status_of_first(store_url: str) -> RunStatus:
    with read_session(store_url) as s:
        return s.get_one(Run, 1).status

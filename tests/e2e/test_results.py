"""Reading results in a real browser: the table of runs, a run, the trade-offs and the queue."""

import io
import re
import zipfile
from contextlib import suppress
from dataclasses import fields

import pytest
from playwright.sync_api import Page, TimeoutError, expect
from sqlalchemy import func, select, update

from core.store import champions
from core.store.engine import read_session, session
from core.store.models import Artifact, Latency, Run, RunStage, RunStatus, Stage
from core.store.tradeoffs.filters import Conditions
from tests.e2e.pages import SLOW, open_page

pytestmark = pytest.mark.browser


def a_done_run(store_url: str) -> Run:
    with read_session(store_url) as s:
        return s.scalars(select(Run).where(Run.status == RunStatus.DONE).order_by(Run.id.desc())).first()


def test_the_address_of_runs_follows_the_filters(page, server):
    open_page(page, f"{server.url}/runs", "Runs")
    expect(page.get_by_text("30 runs, showing 1 to 30")).to_be_visible()
    page.get_by_role("button", name="done", exact=True).click()
    page.wait_for_url(re.compile("status=done"))
    expect(page.get_by_text("30 runs")).not_to_be_visible()
    shown = page.get_by_text(re.compile(r"\d+ runs?, showing 1 to \d+")).inner_text()
    page.reload()
    expect(page.get_by_text(shown)).to_be_visible(timeout=SLOW)


def test_selected_runs_are_cancelled(page, server):
    with read_session(server.store_url) as s:
        queued = s.scalars(select(Run.id).where(Run.status == RunStatus.QUEUED)).all()
    open_page(page, f"{server.url}/runs?status=queued", "Runs")
    page.get_by_role("checkbox", name="Select all rows").check()
    page.get_by_role("button", name=f"Cancel {len(queued)}").click()
    expect(page.get_by_text(re.compile("cancelled or stopping"))).to_be_visible()
    with read_session(server.store_url) as s:
        assert {s.get_one(Run, number).status for number in queued} == {RunStatus.CANCELLED}


def test_runs_are_filtered_sorted_and_opened_from_their_table(page, server):
    with read_session(server.store_url) as s:
        model = s.scalars(select(Run.model).order_by(Run.id)).first()
        oldest = s.scalars(select(Run.id).where(Run.model == model).order_by(Run.id).limit(2)).all()
        n_runs = s.scalar(select(func.count()).where(Run.model == model))
    open_page(page, f"{server.url}/runs", "Runs")
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Model").click()
    page.get_by_role("option", name=model, exact=True).click()
    expect(page.get_by_text(f"Only model {model}.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text(f"{n_runs} runs, showing 1 to ")).to_be_visible()  # the table before hears no clicks
    page.get_by_role("button", name="Submitted").click()
    page.wait_for_url(re.compile("sort=oldest"))
    links = page.locator("table a")
    expect(page.locator('th[aria-sort="ascending"]')).to_have_text("Submitted")
    expect(page.locator("table")).to_have_count(1)  # the one before is gone
    expect(links.nth(1)).to_have_text(str(oldest[1]))
    page.get_by_role("checkbox", name=f"Select {oldest[1]}", exact=True).check()
    expect(page.get_by_text("Select rows to compare")).not_to_be_visible()
    links.nth(0).click()
    page.wait_for_url(re.compile(f"run=({oldest[0]})$"))


def test_a_run_shows_stages_and_keeps_its_tab_in_the_address(page, server):
    run = a_done_run(server.store_url)
    open_page(page, f"{server.url}/run?run={run.id}", run.name)
    expect(page.get_by_text("Nominal vs measured")).to_be_visible()
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(3)
    page.get_by_role("tab", name="Spec").click()
    expect(page.get_by_text("Compute time")).to_be_visible()
    page.wait_for_url(re.compile("tab=Spec"))
    page.reload()
    expect(page.get_by_text("Compute time")).to_be_visible(timeout=SLOW)


def test_an_artifact_is_downloaded(page, server):
    run = a_done_run(server.store_url)
    with read_session(server.store_url) as s:
        last = select(RunStage.stage_id).where(RunStage.run_id == run.id).order_by(RunStage.position.desc()).limit(1)
        address = s.scalars(select(Artifact.address).where(Artifact.stage_id == last.scalar_subquery())).one()
    folder = server.home / "artifacts" / address
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    open_page(page, f"{server.url}/run?run={run.id}&tab=Artifacts", run.name)
    link = page.get_by_role("link", name="Download").first
    link.evaluate("link => link.removeAttribute('target')")  # else the driver may miss what a new tab downloads
    with page.expect_download() as waiting:
        link.click()
    with zipfile.ZipFile(io.BytesIO(waiting.value.path().read_bytes())) as archive:
        assert [name.rpartition("/")[2] for name in archive.namelist()] == ["manifest.json"]


def test_a_run_is_followed_until_it_ends(page, server):
    run = a_done_run(server.store_url)

    def change(**values) -> None:
        with session(server.store_url) as s:
            s.execute(update(Run).where(Run.id == run.id).values(values))

    change(status=RunStatus.RUNNING, progress=0.4, progress_text="train: update 8")
    open_page(page, f"{server.url}/run?run={run.id}", run.name)
    expect(page.get_by_text("train: update 8")).to_be_visible()
    change(progress=0.7, progress_text="train: update 14")
    expect(page.get_by_text("train: update 14")).to_be_visible()
    change(status=RunStatus.DONE)
    expect(page.get_by_text(f"Run {run.id} is done.")).to_be_visible()
    expect(page.get_by_text("train: update 14")).not_to_be_visible()


def test_clicking_a_mark_lists_its_stage_and_limits_name_the_best(page, server):
    open_page(page, f"{server.url}/", "Trade-offs")
    chart = page.get_by_test_id("stVegaLiteChart").locator("canvas")
    expect(chart).to_be_visible()
    expect(page.get_by_role("heading", name="Pareto frontier")).to_be_visible()
    page.wait_for_timeout(500)
    box = chart.bounding_box()
    selected = page.get_by_role("heading", name="Selected stages")
    for x, y in marks(page):
        page.mouse.click(box["x"] + x, box["y"] + y)
        with suppress(TimeoutError):  # this pixel was not a mark's: the next one
            selected.wait_for(timeout=4000)
            break
    expect(selected).to_be_visible()
    page.get_by_text("Filters, limits and conditions").click()
    field = page.get_by_label("Size at most (MB)")
    field.fill("2")
    field.press("Enter")
    expect(page.get_by_text(re.compile("within the limits:"))).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("Open run"))).to_be_visible()


def test_the_box_of_limits_stays_open_while_they_are_set_and_counts_them_when_closed(page, server):
    open_page(page, f"{server.url}/", "Trade-offs")
    expect(page.get_by_text("Set a limit to get a recommendation.")).to_be_visible()
    page.get_by_text("Filters, limits and conditions").click()
    size, latency = page.get_by_label("Size at most (MB)"), page.get_by_label("Latency at most (ms)")
    size.fill("2.125")
    size.press("Tab")
    page.wait_for_url(re.compile("most_mb=2.125"))
    expect(page.get_by_text("within the limits:")).to_be_visible()
    expect(size).to_have_value("2.125")
    latency.fill("500")
    latency.press("Enter")
    page.wait_for_url(re.compile("most_ms=500"))
    expect(size).to_be_visible()
    page.get_by_text("Filters, limits and conditions").click()
    expect(page.get_by_text("2 active.")).to_be_visible()
    expect(size).not_to_be_visible()


def marks(page: Page) -> list[tuple[float, float]]:
    """Places on the chart's canvas where the frontier's blue marks are, by colour."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector('[data-testid="stVegaLiteChart"] canvas');
            const scale = canvas.width / canvas.clientWidth;
            const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const found = [];
            for (let y = 70 * scale; y < height; y += 2)
                for (let x = 0; x < width; x += 2) {
                    const at = (Math.floor(y) * width + x) * 4;
                    if (data[at] < 30 && Math.abs(data[at + 1] - 114) < 20 && data[at + 2] > 150)
                        found.push([x / scale, y / scale]);
                }
            const step = Math.max(1, Math.floor(found.length / 12));
            return found.filter((_, i) => i % step === 0).slice(0, 12);
        }"""
    )


def test_a_champions_long_note_is_read_to_its_end(page, server):
    note = "Tested on the field team's phones for two weeks; everybody agreed that the loss is worth it. " * 3
    with session(server.store_url) as s:
        place = s.execute(select(RunStage, Stage).join(Stage, Stage.id == RunStage.stage_id).limit(1)).one()
        timed = s.scalars(select(Latency).where(Latency.stage_id == place.Stage.id).limit(1)).one()
        device = Conditions(**{field.name: getattr(timed, field.name) for field in fields(Conditions)})
        told = {"project_id": place.RunStage.project_id, "position": place.RunStage.position, "user_id": 1}
        champions.crown(s, device=device, run_id=place.RunStage.run_id, note=note.strip(), **told)
        task = place.Stage.task
    open_page(page, f"{server.url}/?points_of={task}", "Trade-offs")
    page.get_by_text("Champions").click()
    cell = page.locator("td", has_text=note.strip())
    expect(cell).to_be_visible()
    for whole in (cell, page.locator(".rows", has=cell)):
        assert whole.evaluate("it => it.scrollWidth <= it.clientWidth")


def test_a_queued_run_moves_to_the_top(page, server):
    with session(server.store_url) as s:
        first, second, *_ = s.scalars(select(Run).order_by(Run.id).limit(2)).all()
        for place, run in enumerate((first, second)):
            run.status, run.position = RunStatus.QUEUED, 1000.0 + place
    open_page(page, f"{server.url}/queue", "Queue")
    names = page.get_by_role("link", name=re.compile(r"^\d+ · "))
    expect(names.first).to_have_text(re.compile(f"^{first.id} · "))
    page.locator(f".st-key-top-{second.id} button").first.click()
    expect(names.first).to_have_text(re.compile(f"^{second.id} · "))

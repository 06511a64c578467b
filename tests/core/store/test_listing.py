import pytest
from sqlalchemy import select

from core.store import listing, runs
from core.store.listing import RunFilter
from core.store.models import Run, RunStage, RunStatus, Stage
from tests import factories

N = 80


@pytest.fixture
def filled(session):
    project_id = factories.fill_store(session, N)
    return session, project_id, session.scalars(select(Run).order_by(Run.id.desc())).all()


def ids(rows):
    return [row.id for row in rows]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, lambda run: True),
        ({"statuses": (RunStatus.FAILED, RunStatus.QUEUED)}, lambda run: run.status in ("failed", "queued")),
        ({"model": "builtin:gpt"}, lambda run: run.model == "builtin:gpt"),
        ({"task": "builtin:digits"}, lambda run: run.task == "builtin:digits"),
        ({"technique": "svd"}, lambda run: "svd" in run.recipe),
        ({"text": "SVD gpt"}, lambda run: "svd" in run.search and "gpt" in run.search),
        ({"text": "100%"}, lambda run: False),
        ({"owner_id": 99}, lambda run: False),
        ({"technique": "svd", "task": "builtin:digits"}, lambda run: "svd" in run.recipe and "digits" in run.task),
    ],
)
def test_filters_keep_exactly_what_fits(filled, changes, fits):
    session, project_id, every = filled
    expected = [run.id for run in every if fits(run)]
    chosen = RunFilter(project_id, **changes)
    assert ids(listing.list_runs(session, chosen, page_size=N)) == expected
    assert listing.count_runs(session, chosen) == len(expected)
    assert listing.list_run_ids(session, chosen) == expected


def test_pages_follow_each_other_without_gap_or_overlap(filled):
    session, project_id, every = filled
    pages = [listing.list_runs(session, RunFilter(project_id), page=page, page_size=30) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [30, 30, 20, 0]
    assert [run_id for page in pages for run_id in ids(page)] == ids(every)


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("oldest", lambda run: (run.id,)),
        ("model", lambda run: (run.model, -run.id)),
        ("longest", lambda run: (-run.compute_seconds, -run.id)),
        ("status", lambda run: (run.status.value, -run.id)),
    ],
)
def test_orders(filled, order, key):
    session, project_id, every = filled
    rows = listing.list_runs(session, RunFilter(project_id), order, page_size=N)
    assert ids(rows) == [run.id for run in sorted(every, key=key)]


def test_another_project_sees_nothing(filled):
    session, project_id, _ = filled
    assert listing.list_runs(session, RunFilter(project_id + 1)) == []


def test_choices_are_what_the_runs_have(filled):
    session, project_id, every = filled
    choices = listing.list_choices(session, project_id)
    assert choices["models"] == sorted({run.model for run in every})
    assert choices["owners"] == ["local"]
    assert "train" in choices["techniques"]


def test_tags_filter_and_are_found_by_text(session):
    tagged, plain = factories.submit(session, name="One"), factories.submit(session, name="two")
    runs.add_tag(session, tagged.id, "Keep")
    runs.add_tag(session, tagged.id, "Keep")
    project_id = plain.project_id
    assert ids(listing.list_runs(session, RunFilter(project_id, tag="Keep"))) == [tagged.id]
    assert ids(listing.list_runs(session, RunFilter(project_id, text="keep ONE"))) == [tagged.id]
    runs.remove_tag(session, tagged.id, "Keep")
    assert listing.list_runs(session, RunFilter(project_id, text="keep")) == []
    assert runs.list_tags(session, tagged.id) == []


def test_queue_shows_running_runs_then_the_next_ones_in_order(session):
    from core.store import moves, queue

    a, b, c = (factories.submit(session).id for _ in range(3))
    queue.claim_next_run(session, None, "cpu", [], 30.0)
    moves.move_run(session, c, "up")
    assert ids(listing.list_queue(session)) == [a, c, b]


def test_last_stages_stand_beside_their_reference(filled):
    session, _, every = filled
    done = [run.id for run in every if run.status == RunStatus.DONE][:20]
    rows = {row.run_id: row for row in listing.list_last_stages(session, done)}
    assert set(rows) == set(done)
    for run_id, row in rows.items():
        attached = session.scalars(select(RunStage).where(RunStage.run_id == run_id).order_by(RunStage.position)).all()
        last = attached[-1]
        assert (row.stage_id, row.position) == (last.stage_id, last.position)
        assert row.reference_size_bytes == session.get(Stage, last.reference_stage_id).size_bytes

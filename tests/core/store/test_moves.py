from sqlalchemy import select

from core.store import moves, queue
from core.store.models import Run
from tests import factories


def order(session):
    ids = []
    while (run := queue.claim_next_run(session, None, "cpu", [], 30.0)) is not None:
        ids.append(run.id)
    return ids


def submitted(session, n=4):
    return [factories.submit(session).id for _ in range(n)]


def test_runs_submitted_in_one_instant_have_places_of_their_own(session):
    submitted(session, 30)
    positions = session.scalars(select(Run.position)).all()
    assert len(set(positions)) == 30


def test_up_and_down_change_places_with_the_neighbour(session):
    a, b, c, d = submitted(session)
    assert moves.move_run(session, c, "up")  # a c b d
    assert moves.move_run(session, a, "down")  # c a b d
    assert order(session) == [c, a, b, d]


def test_top_passes_everything(session):
    a, b, c, d = submitted(session)
    assert moves.move_run(session, d, "top")
    assert moves.move_run(session, b, "top")
    assert order(session) == [b, d, a, c]


def test_first_run_cannot_go_up_and_the_last_not_down(session):
    a, *_, d = submitted(session)
    assert not moves.move_run(session, a, "up")
    assert not moves.move_run(session, a, "top")
    assert not moves.move_run(session, d, "down")


def test_running_run_is_not_moved(session):
    a, b, *_ = submitted(session)
    queue.claim_next_run(session, None, "cpu", [], 30.0)
    assert not moves.move_run(session, a, "down")
    assert not moves.move_run(session, b, "up")  # a is no neighbour any more

import pytest

from core.store import curves
from tests import factories


def test_computed_again_a_step_takes_the_place_of_the_first(session):
    run = factories.submit(session)
    curves.add_points(session, run.id, [("1/loss", 0, 3.0), ("1/loss", 1, 2.0)])
    curves.add_points(session, run.id, [("1/loss", 1, 1.5), ("1/loss", 2, 1.0), ("1/loss", 2, 0.5)])
    assert [row.mean for row in curves.read_curve(session, run.id, "1/loss")] == [3.0, 1.5, 0.5]


@pytest.mark.parametrize(("n", "n_buckets"), [(10, 500), (1000, 7), (1001, 100)])
def test_buckets_hold_low_mean_and_high_of_their_points(session, n, n_buckets):
    run = factories.submit(session)
    values = [(step, float((step * 7919) % 101)) for step in range(5, 5 + n)]
    curves.add_points(session, run.id, [("1/loss", step, value) for step, value in values])
    expected = {}
    for step, value in values:
        expected.setdefault((step - 5) * n_buckets // n, []).append((step, value))
    rows = curves.read_curve(session, run.id, "1/loss", n_buckets)
    assert len(rows) == len(expected) <= n_buckets
    for row, (_, inside) in zip(rows, sorted(expected.items()), strict=True):
        inner = [value for _, value in inside]
        assert (row.step, row.n_points, row.low, row.high) == (inside[0][0], len(inside), min(inner), max(inner))
        assert row.mean == pytest.approx(sum(inner) / len(inner))


def test_curves_are_listed_with_their_length(session):
    run, other = factories.submit(session), factories.submit(session)
    curves.add_points(session, run.id, [("1/loss", step, 0.0) for step in range(0, 50, 10)] + [("2/loss", 3, 1.0)])
    curves.add_points(session, other.id, [("1/loss", 0, 0.0)])
    assert curves.list_curves(session, [run.id]) == [(run.id, "1/loss", 5, 40), (run.id, "2/loss", 1, 3)]


def test_more_points_than_fit_one_statement_are_written(session):
    run = factories.submit(session)
    curves.add_points(session, run.id, [("1/loss", step, float(step)) for step in range(20_000)])
    assert sum(row.n_points for row in curves.read_curve(session, run.id, "1/loss", 10)) == 20_000

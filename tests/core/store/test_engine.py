"""What an engine adds to SQLite."""

import math
import sqlite3

import pytest
from sqlalchemy import event, func, make_url, select

from core.store import engine

NUMBERS = [None, -math.inf, -1.5, 0, 0.0, 5e-324, 0.5, 1, 2, math.e, 10**18, 1.7e308, math.inf]


def hide_ln(connection, record):
    """Make SQLite's `ln` fail, as one that was never compiled does."""
    connection.create_function("ln", 1, None)


@pytest.fixture
def without_mathematics(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    database = engine._sqlite(make_url(url))
    event.listen(database, "connect", hide_ln, insert=True)
    yield database
    database.dispose()


def logarithms(database):
    with database.connect() as connection:
        return [connection.scalar(select(func.ln(number))) for number in NUMBERS]


def test_a_build_without_mathematics_gets_the_logarithm_that_others_have(without_mathematics):
    found = logarithms(without_mathematics)
    assert found == [None if number is None or number <= 0 else math.log(number) for number in NUMBERS]
    own = logarithms(engine._sqlite(make_url("sqlite://")))
    assert all(a == b if a is None else math.isclose(a, b, rel_tol=1e-15) for a, b in zip(found, own, strict=True))


def test_a_hidden_logarithm_fails_where_nothing_stands_in_for_it():
    connection = sqlite3.connect(":memory:")
    hide_ln(connection, None)
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("SELECT ln(2.0)")
    connection.close()

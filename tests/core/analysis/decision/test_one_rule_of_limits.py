"""Charts and decisions hold stages against limits by one rule, whatever is typed."""

import random
import re

import numpy as np
import pandas as pd
import pytest

from app.charts.annotated import find_feasible
from app.charts.axes import AXES, list_axes, score_axis
from app.screens.tradeoffs.limits import list_fields
from app.text import formats
from core.analysis.decision.choice import decide

TASK = {"score_name": "accuracy", "score_unit": "%", "higher_is_better": True}
ALL = list_axes(score_axis("accuracy", "%", True))
FIELDS = {field.column: field for field in list_fields(TASK)}
TYPED = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


def decided(column: str, values: np.ndarray, bound: float) -> list[bool]:
    n = len(values)
    table = {"score": np.ones(n), "size_bytes": np.ones(n), column: values}
    return decide(table, [ALL[column].limit(bound)], higher_is_better=True).feasible.tolist()


def drawn(column: str, values: np.ndarray, bound: float) -> list[bool]:
    return find_feasible(pd.DataFrame({column: values}), {column: bound}, ALL).tolist()


@pytest.mark.parametrize("megabytes", [4.1, 8.2, 0.05, 1.1, 16.4])
def test_a_size_keeps_itself_as_the_limit(megabytes):
    """4.1 * 1e6 is less than 4,100,000 in floating point."""
    size = np.array([round(megabytes * 1e6)], dtype=float)
    bound = FIELDS["size_bytes"].bound(megabytes)
    assert bound == size[0]
    assert drawn("size_bytes", size, bound) == decided("size_bytes", size, bound) == [True]
    assert drawn("size_bytes", size + 1, bound) == decided("size_bytes", size + 1, bound) == [False]


def test_both_agree_for_every_displayed_size():
    chance = random.Random(0)
    sizes = np.array([chance.randrange(10 ** chance.randint(1, 10)) + 1 for _ in range(400)], dtype=float)
    for size in sizes[:200]:
        number, unit = formats.size(size).split()
        bound = FIELDS["size_bytes"].bound(float(number) * TYPED[unit])
        assert drawn("size_bytes", sizes, bound) == decided("size_bytes", sizes, bound)


@pytest.mark.parametrize("column", ["score", "size_bytes", "p50_ms", "kl"])
def test_both_agree_for_every_other_displayed_value(column):
    chance = random.Random(1)
    values = np.array([chance.lognormvariate(0, 2) for _ in range(200)])
    for value in values[:50]:
        number = float(re.match(r"[\d.]+", ALL[column].read(value))[0])
        assert drawn(column, values, number) == decided(column, values, number)


@pytest.mark.parametrize("column", ["size_bytes", "p50_ms", "macs", "kl", "score", "top1_agreement"])
def test_a_bound_that_is_told_does_what_is_told_of_it_when_it_is_typed(column):
    """Rounded toward the looser side a value keeps it; rounded toward the tighter side it keeps nothing below it."""
    factors = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "k": 1e3, "M": 1e6, "G": 1e9, "s": 1e3}
    chance, axis = random.Random(2), ALL[column]
    spread = {"score": (1.0, 100.0), "top1_agreement": (1.0, 100.0), "size_bytes": (1e3, 1e9), "macs": (1e3, 1e9)}

    def typed(text: str) -> float:
        number, _, unit = text.partition(" ")
        return float(number) * factors.get(unit, 1.0)

    for _ in range(300):
        low, high = spread.get(column, (1e-3, 1e3))
        value = low * (high / low) ** chance.random()
        value = float(round(value)) if column in ("size_bytes", "macs") else value
        up, down = (typed(axis.read_rounded(value, up=up)) for up in (True, False))
        assert down * (1 - 1e-9) <= value <= up * (1 + 1e-9)
        assert up - down <= max(0.0101 * value, 0.1001 if column == "score" else 0.01001)


def test_what_is_shown_exactly_is_not_rounded_away():
    assert AXES["size_bytes"].read_rounded(4_100_000, up=True) == AXES["size_bytes"].read(4_100_000) == "4.10 MB"
    assert AXES["size_bytes"].read_rounded(4_104_000, up=True) == "4.11 MB"
    assert AXES["size_bytes"].read_rounded(853, up=False) == "853 B"

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.analysis.pareto import compute_hypervolume, compute_hypervolume_steps, dominated, find_frontier, find_knee


def by_definition(points, directions):
    """No other is at least as good on every axis and better on one."""
    sign = np.array([1 if direction == "min" else -1 for direction in directions])
    costs = np.asarray(points, dtype=float) * sign
    on_frontier = []
    for point in costs:
        others = [other for other in costs if (other <= point).all() and (other < point).any()]
        on_frontier.append(not others and not np.isnan(point).any())
    return on_frontier


def small_points(n_axes):
    values = st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.5, float("nan"), float("inf"), -float("inf")])  # ties abound
    return st.integers(0, 40).flatmap(lambda n: arrays(float, (n, n_axes), elements=values))


@pytest.mark.parametrize("n_axes", [1, 2, 3, 4, 5])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_frontier_is_as_defined(n_axes, data):
    points = data.draw(small_points(n_axes))
    directions = data.draw(st.lists(st.sampled_from(["min", "max"]), min_size=n_axes, max_size=n_axes))
    assert find_frontier(points, directions).tolist() == by_definition(points, directions)
    assert (dominated(points, directions) == ~find_frontier(points, directions)).all()


@pytest.mark.parametrize("n_axes", [2, 3, 4])
def test_many_points_in_general_position(n_axes):
    points = np.random.default_rng(0).normal(size=(700, n_axes))
    assert find_frontier(points, ["max"] * n_axes).tolist() == by_definition(points, ["max"] * n_axes)


def test_points_that_all_trade_off_are_all_on_the_frontier():
    x = np.random.default_rng(0).random((2000, 3))
    x[:, 2] = 1 - x[:, 0] - x[:, 1]
    assert find_frontier(x, ["min"] * 3).all()
    many = np.column_stack([x, -x[:, 0] - x[:, 1]])
    assert find_frontier(many, ["min"] * 4).all()


def test_equal_points_stay_together():
    assert find_frontier([[1, 2], [1, 2], [2, 3]], ["min", "min"]).tolist() == [True, True, False]
    assert find_frontier([[1, 2], [1, 1]], ["min", "min"]).tolist() == [False, True]  # as good here, better there


def test_smaller_and_more_accurate_is_better():
    size_and_accuracy = [[10, 99.0], [5, 98.0], [5, 97.0], [20, 99.0], [1, 50.0]]
    assert find_frontier(size_and_accuracy, ["min", "max"]).tolist() == [True, True, False, False, True]


def test_a_point_without_a_value_is_not_on_the_frontier_and_shuts_nobody_out():
    assert find_frontier([[0, np.nan], [1, 1]], ["min", "min"]).tolist() == [False, True]


def test_no_points_have_no_frontier():
    assert find_frontier([], ["min", "max"]).shape == (0,)
    assert compute_hypervolume([], ["min", "min"], [1, 1]) == 0
    assert find_knee([], ["min", "min"]) is None


@pytest.mark.parametrize(
    ("points", "directions"), [([[1, 2]], ["min"]), ([1, 2], ["min", "min"]), ([[1]], ["low"]), ([[]], [])]
)
def test_what_does_not_fit_is_refused(points, directions):
    with pytest.raises(ValueError):
        find_frontier(points, directions)


def test_hypervolume_by_hand():
    assert compute_hypervolume([[1, 3], [2, 2], [3, 1], [3, 3]], ["min", "min"], [4, 4]) == 6  # 3 + 2 + 1 squares
    assert compute_hypervolume([[1, 5]], ["min", "min"], [4, 4]) == 0
    assert compute_hypervolume([[0, 90], [-1, 95]], ["min", "max"], [2, 80]) == 3 * 15
    assert compute_hypervolume([[0, 0, 1], [1, 1, 0]], ["min"] * 3, [2, 2, 2]) == 4 + 1  # two boxes that share nothing


def covered_cells(points, limit):
    """Volume on a grid of unit cells, as slow as can be."""
    cells = np.stack(np.meshgrid(*[np.arange(limit)] * points.shape[1], indexing="ij"), axis=-1)
    covered = np.zeros(cells.shape[:-1], dtype=bool)
    for point in points:
        covered |= (cells >= point).all(axis=-1)
    return covered.sum()


@pytest.mark.parametrize("n_axes", [2, 3])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hypervolume_counts_every_cell_once(n_axes, data):
    points = data.draw(st.integers(0, 25).flatmap(lambda n: arrays(int, (n, n_axes), elements=st.integers(0, 8))))
    assert compute_hypervolume(points, ["min"] * n_axes, [7] * n_axes) == covered_cells(points, 7)
    assert compute_hypervolume(-points, ["max"] * n_axes, [-7] * n_axes) == covered_cells(points, 7)


def test_steps_of_the_hypervolume_by_hand():
    points = [[3, 3], [1, 3], [3, 3], [5, 5], [2, 2], [float("nan"), 0]]
    assert compute_hypervolume_steps(points, ["min", "min"], [4, 4]) == [(0, 1.0), (1, 3.0), (4, 5.0)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_steps_lead_to_the_hypervolume_of_the_points_so_far(data):
    points = data.draw(st.integers(0, 20).flatmap(lambda n: arrays(int, (n, 2), elements=st.integers(0, 8))))
    steps = dict(compute_hypervolume_steps(points, ["min", "max"], [7, 1]))
    so_far = 0.0
    for index in range(len(points)):
        whole = compute_hypervolume(points[: index + 1], ["min", "max"], [7, 1])
        assert steps.get(index, so_far) == whole
        assert (index in steps) == (whole > so_far)
        so_far = whole


def test_the_hypervolume_of_four_axes_is_refused():
    with pytest.raises(ValueError, match="2 or 3 axes"):
        compute_hypervolume([[1] * 4], ["min"] * 4, [2] * 4)


def test_the_knee_is_farthest_from_the_chord():
    points = np.array([[0, 100], [10, 20], [40, 12], [100, 0], [90, 90]], dtype=float)
    assert find_knee(points, ["min", "min"]) == 1
    assert find_knee(points * [1, -1], ["min", "max"]) == 1
    assert find_knee(points * [1000, 1], ["min", "min"]) == 1  # whatever the units


def test_a_frontier_without_a_bulge_has_no_knee():
    assert find_knee([[0, 1], [1, 0]], ["min", "min"]) is None
    assert find_knee([[0, 2], [1, 1], [2, 0]], ["min", "min"]) is None  # straight
    assert find_knee([[0, 2], [1.5, 1.5], [2, 0]], ["min", "min"]) is None  # bulges inwards


def test_the_frontier_loads_no_torch():
    code = "import sys, core.analysis.pareto; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The choice of one variant for each part: the least sum of loss increases within a budget, exactly.

HAWQ-V3 (https://arxiv.org/abs/2011.10680, section 3.3) and Puzzletron (https://arxiv.org/abs/2411.19146) state it as an
integer program. Parts are rows and variants columns of two matrices, of loss increases and of costs. Loss increases add
up, as if no part changed what another one costs. That makes the problem linear, and is why predictions are compared
with measurements afterwards.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Choice = NDArray[np.intp]  # [parts]: the variant of each
TOLERANCE = 1e-9  # of a budget: sums of floats in another order


class Unaffordable(ValueError):
    """Not even the cheapest variants fit the budget; `least` is what they cost."""

    def __init__(self, budget: float, least: float):
        super().__init__(f"the cheapest choice costs {least:g}, and the budget is {budget:g}")
        self.least = least


def total(values: Matrix, choice: Choice) -> float:
    """The sum over parts of the chosen variants' values."""
    return float(values[np.arange(len(values)), choice].sum())


def fits(costs: Matrix, choice: Choice, budget: float) -> bool:
    """Whether a choice is within the budget."""
    return total(costs, choice) <= budget * (1 + TOLERANCE)


def choose(losses: Matrix, costs: Matrix, budget: float, candidates: Sequence[Choice] = ()) -> Choice:
    """The choice with the least sum of `losses` [parts, variants] whose `costs` sum to at most `budget`.

    A variant whose loss or cost is not finite cannot be chosen. Loss increases below zero are noise and count as zero;
    of equal losses the cheaper variant is chosen. Raises Unaffordable if nothing fits. `candidates` are choices that
    the result is at least as good as, where they fit: a solver's tolerance must not make it worse than a plain one.
    """
    losses = clamped(losses)
    allowed = np.isfinite(losses) & np.isfinite(costs)
    cheapest = np.where(allowed, costs, np.inf).argmin(axis=1)
    if not allowed.any(axis=1).all() or not fits(costs, cheapest, budget):
        raise Unaffordable(budget, total(np.where(allowed, costs, np.inf), cheapest))
    useful = _undominated(losses, costs, allowed)
    found = [cheapest, *candidates, *_hull_choices(losses, costs, useful)]
    within = budget
    for _ in range(20):  # a solver takes a budget as met that is exceeded by its tolerance
        solved = _solve(losses, costs, useful, within)
        if solved is None:
            break
        if fits(costs, solved, budget):
            found.append(solved)
            break
        within -= 2 * (total(costs, solved) - budget)
    affordable = [choice for choice in found if fits(costs, choice, budget) and _is_allowed(choice, allowed)]
    return min(affordable, key=lambda choice: (total(losses, choice), total(costs, choice)))


def frontier(losses: Matrix, costs: Matrix) -> list[Choice]:
    """Choices from the cheapest to the best, each the least loss at its own cost: the lower convex hull.

    Each step changes one part to the variant that lowers the loss most for what it costs (Lagrange multipliers). For a
    budget between two of them, `choose` may find a better choice than the cheaper one.
    """
    losses = clamped(losses)
    return _hull_choices(losses, costs, _undominated(losses, costs, np.isfinite(losses) & np.isfinite(costs)))


def clamped(losses: Matrix) -> Matrix:
    """Loss increases with those below zero, which are noise of an estimate, set to zero."""
    return np.where(np.isfinite(losses), np.maximum(losses, 0.0), np.inf)


def _is_allowed(choice: Choice, allowed: NDArray[np.bool_]) -> bool:
    return bool(allowed[np.arange(len(allowed)), choice].all())


def _undominated(losses: Matrix, costs: Matrix, allowed: NDArray[np.bool_]) -> list[list[int]]:
    """For each part its variants by rising cost, each with less loss than all cheaper ones."""
    kept = []
    for loss, cost, fine in zip(losses, costs, allowed, strict=True):
        best, row = np.inf, []
        for variant in sorted(np.flatnonzero(fine).tolist(), key=lambda v: (cost[v], loss[v])):
            if loss[variant] < best:
                best = loss[variant]
                row.append(variant)
        kept.append(row)
    return kept


def _solve(losses: Matrix, costs: Matrix, useful: list[list[int]], budget: float) -> Choice | None:
    """HiGHS's optimum of the mixed-integer program; None if it finds nothing feasible."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second to import
    from scipy.sparse import csr_matrix

    part = np.repeat(np.arange(len(useful)), [len(row) for row in useful])
    variant = np.concatenate([np.array(row, dtype=np.intp) for row in useful])
    n = len(part)
    one_each = csr_matrix((np.ones(n), (part, np.arange(n))), shape=(len(useful), n))
    scale = budget if budget > 0 else 1.0
    loss = losses[part, variant]
    largest = loss.max()
    solved = milp(
        loss / largest if largest > 0 else loss,
        integrality=np.ones(n),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(costs[part, variant][None] / scale, -np.inf, budget / scale),
        ],
        options={"mip_rel_gap": 0.0, "time_limit": 30.0},
    )
    if solved.x is None:
        return None
    chosen = np.zeros(losses.shape)
    chosen[part, variant] = solved.x
    return chosen.argmax(axis=1)


def _hull_choices(losses: Matrix, costs: Matrix, useful: list[list[int]]) -> list[Choice]:
    """Choices on the convex hull: the cheapest, then one step of one part after another, the steepest first."""
    steps = []
    for part, row in enumerate(useful):
        hull = _hull(losses[part], costs[part], row)
        for before, after in pairwise(hull):
            gain = losses[part, before] - losses[part, after]
            steps.append((-gain / (costs[part, after] - costs[part, before]), part, after))
    choice = np.array([row[0] for row in useful], dtype=np.intp)
    choices = [choice.copy()]
    for _, part, variant in sorted(steps):
        choice[part] = variant
        choices.append(choice.copy())
    return choices


def _hull(loss: Matrix, cost: Matrix, row: list[int]) -> list[int]:
    """Of variants by rising cost and falling loss, those on the lower convex hull."""
    hull: list[int] = []
    for variant in row:
        while len(hull) > 1:
            (a, b), c = hull[-2:], variant
            if (loss[a] - loss[b]) * (cost[c] - cost[b]) > (loss[b] - loss[c]) * (cost[b] - cost[a]):
                break
            hull.pop()
        hull.append(variant)
    return hull

"""The choice of variants under a budget, against all choices there are."""

import itertools

import numpy as np
import pytest

from core.allocation.choice import Unaffordable, choose, fits, frontier, total


def problem(seed: int, parts: int = 5, variants: int = 4):
    """Losses that fall with rising costs, but not along a convex curve, and a few that are worse and dearer."""
    draw = np.random.default_rng(seed)
    costs = np.sort(draw.integers(1, 40, (parts, variants)), axis=1) * draw.integers(1, 9, (parts, 1))
    losses = -np.sort(-draw.exponential(1, (parts, variants)), axis=1)
    losses[0, -1] = losses[0].max() + 1
    return losses, costs.astype(float)


def by_force(losses, costs, budget):
    """The least loss over every choice, by dynamic programming's opposite: trying all."""
    parts, variants = losses.shape
    rows = np.arange(parts)
    every = (np.array(choice) for choice in itertools.product(range(variants), repeat=parts))
    return min(
        (losses[rows, choice].sum() for choice in every if costs[rows, choice].sum() <= budget), default=float("inf")
    )


def by_dynamic_programming(losses, costs, budget):
    """The least loss at each whole cost up to the budget."""
    best = np.zeros(int(budget) + 1)
    for loss, cost in zip(losses, costs.astype(int), strict=True):
        after = np.full_like(best, np.inf)
        for each, price in zip(loss, cost, strict=True):
            if price <= budget:
                after[price:] = np.minimum(after[price:], best[: len(best) - price] + each)
        best = after
    return best.min()


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_is_the_best_of_all(seed):
    losses, costs = problem(seed, parts=4 + seed % 3)
    low, high = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    for share in (0.0, 0.1, 0.3, 0.5, 0.8, 1.0):
        budget = round(low + share * (high - low))
        chosen = choose(losses, costs, budget)
        assert costs[np.arange(len(costs)), chosen].sum() <= budget
        assert total(losses, chosen) == pytest.approx(by_force(losses, costs, budget), rel=1e-12)
        assert total(losses, chosen) == pytest.approx(by_dynamic_programming(losses, costs, budget), rel=1e-12)


def test_many_parts_match_dynamic_programming():
    losses, costs = problem(3, parts=60, variants=8)
    for budget in (3000, 5000, 7000):
        chosen = choose(losses, costs, budget)
        assert fits(costs, chosen, budget)
        assert total(losses, chosen) == pytest.approx(by_dynamic_programming(losses, costs, budget), rel=1e-9)


def test_more_budget_is_never_worse():
    losses, costs = problem(1)
    found = [total(losses, choose(losses, costs, budget)) for budget in range(int(costs.min(1).sum()), 400, 7)]
    assert found == sorted(found, reverse=True)


def test_candidates_are_never_better_than_the_choice():
    losses, costs = problem(2)
    for variant in range(losses.shape[1]):
        uniform = np.full(len(losses), variant)
        budget = total(costs, uniform)
        assert total(losses, choose(losses, costs, budget, [uniform])) <= total(losses, uniform)


def test_a_budget_that_nothing_meets_names_the_least():
    losses, costs = problem(0)
    with pytest.raises(Unaffordable) as raised:
        choose(losses, costs, costs.min(axis=1).sum() - 1)
    assert raised.value.least == costs.min(axis=1).sum()


def test_noise_below_zero_counts_as_zero():
    losses, costs = np.array([[0.0, -5.0], [0.0, 0.0]]), np.array([[1.0, 9.0], [1.0, 9.0]])
    assert choose(losses, costs, 20).tolist() == [0, 0]


def test_variants_without_a_finite_loss_or_cost_are_never_chosen():
    losses, costs = np.array([[np.nan, 0.5, 0.1], [0.3, np.inf, 0.2]]), np.array([[1.0, 2, 3], [1, 1, np.inf]])
    assert choose(losses, costs, 100).tolist() == [2, 0]
    assert choose(losses, costs, 3).tolist() == [1, 0]


def test_a_tiny_or_huge_scale_changes_nothing():
    losses, costs = problem(4)
    plain = choose(losses, costs, 400)
    assert choose(losses * 1e-9, costs * 1e9, 400e9).tolist() == plain.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_each_point_of_the_frontier_is_the_best_at_its_cost(seed):
    losses, costs = problem(seed)
    choices = frontier(losses, costs)
    spent = [total(costs, choice) for choice in choices]
    assert spent == sorted(spent)
    assert spent[0] == costs.min(axis=1).sum()
    assert total(losses, choices[-1]) == pytest.approx(losses.min(axis=1).sum())
    for choice, cost in zip(choices, spent, strict=True):
        assert total(losses, choice) == pytest.approx(by_force(losses, costs, cost), rel=1e-12)

"""Windows scored by tables, against pruning each permutation of each window."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from core.algorithms.permutation import check_window, kept_sum
from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.canonical import canonical_permutations
from core.algorithms.permutation.greedy_swap import GreedySwap
from core.algorithms.permutation.hill_climbing import improve
from core.algorithms.permutation.ranking import Ranking
from core.algorithms.permutation.stripe_groups import StripeGroups
from core.algorithms.permutation.stripe_pairs import StripePairs
from core.algorithms.permutation.stripe_triples import StripeTriples
from core.algorithms.permutation.windows import in_place
from core.errors import SpecError

UNIT = 2.0  # arrangements rescale to a mean magnitude of 1/2; made so, they leave their matrix as it is


def arrangement(n: int, m: int, n_stripes: int, rows: int = 9) -> Arrangement:
    magnitude = torch.rand(rows, n_stripes * m, generator=torch.Generator().manual_seed(m), dtype=torch.float64)
    return Arrangement(magnitude / magnitude.mean() / UNIT, n, m)


def columns(window: tuple[int, ...], m: int) -> list[int]:
    return [stripe * m + i for stripe in window for i in range(m)]


def best_by_pruning(made: Arrangement, window: tuple[int, ...]) -> float:
    """The best gain of a window, each canonical permutation of it pruned."""
    matrix = made.columns.t()[:, columns(window, made.m)].double()
    before = kept_sum(matrix, made.n, made.m)
    orders = canonical_permutations(matrix.shape[1], made.m).long()
    return max(kept_sum(matrix[:, order], made.n, made.m) - before for order in orders)


def check_all(made: Arrangement, ranking: Ranking) -> None:
    """Each window stands once, its gain is the best of all, and its order makes exactly that gain."""
    windows = ranking.gains.isfinite().nonzero()
    assert sorted(sorted(window) for window in windows.tolist()) == [
        list(window) for window in combinations(range(made.n_stripes), ranking.width)
    ]
    exact = made.gains(windows, ranking.orders[ranking.choice(windows)])
    assert torch.allclose(ranking.gains[windows.unbind(1)].double(), exact, atol=1e-5)
    for window, gain in zip(windows.tolist(), exact.tolist(), strict=True):
        assert gain == pytest.approx(best_by_pruning(made, tuple(window)), abs=1e-5)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (3, 4), (1, 3), (2, 5)])
def test_pairs_find_the_best_permutation_of_every_window(n, m):
    made = arrangement(n, m, n_stripes=4)
    pairs = StripePairs(made)
    pairs.refresh(made.everyone, lambda: None)
    check_all(made, pairs.ranking)


@pytest.mark.parametrize(("n", "m", "n_stripes"), [(1, 2, 5), (2, 3, 4), (1, 3, 4)])
def test_triples_find_the_best_permutation_of_every_window(n, m, n_stripes):
    made = arrangement(n, m, n_stripes)
    triples = StripeTriples(made)
    triples.refresh(made.everyone, lambda: None)
    check_all(made, triples.ranking)


def test_triples_of_two_of_four_find_the_best_permutation():
    made = arrangement(2, 4, n_stripes=3, rows=5)
    triples = StripeTriples(made)
    triples.refresh(made.everyone, lambda: None)
    check_all(made, triples.ranking)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 2 * 3)])
def test_greedy_finds_the_best_swap_of_every_two_stripes(n, m):
    made = arrangement(n, m, n_stripes=4)
    greedy = GreedySwap(made)
    greedy.refresh(made.everyone, lambda: None)
    ranking = greedy.ranking
    windows = ranking.gains.isfinite().nonzero()
    assert windows.tolist() == [list(window) for window in combinations(range(4), 2)]
    matrix = made.columns.t()
    for window in windows:
        a, b = window.tolist()
        gains = []
        for i in range(m):
            for j in range(m):
                order = torch.arange(4 * m)
                order[a * m + i], order[b * m + j] = b * m + j, a * m + i
                gains.append(kept_sum(matrix[:, order], n, m) - kept_sum(matrix, n, m))
        chosen = made.gains(window[None], ranking.orders[ranking.choice(window[None])])
        assert float(chosen) == pytest.approx(max(gains), abs=1e-5)
        assert float(ranking.gains[a, b]) == pytest.approx(max(gains), abs=1e-5)


@pytest.mark.parametrize("kind", [GreedySwap, StripePairs, StripeTriples])
def test_what_is_computed_again_after_a_change_is_what_a_fresh_start_computes(kind):
    made = arrangement(2, 4, n_stripes=7)
    moves = kind(made)
    moves.refresh(made.everyone, lambda: None)
    window, order = moves.escape(torch.Generator().manual_seed(3))
    changed = made.apply(window, order)
    assert 2 <= len(changed) < made.n_stripes
    moves.refresh(changed, lambda: None)
    fresh = kind(made)
    fresh.refresh(made.everyone, lambda: None)
    assert torch.allclose(by_window(moves.ranking), by_window(fresh.ranking), atol=1e-5)


def by_window(ranking: Ranking) -> Tensor:
    """Gains by sorted window, whatever the order in which its stripes stand."""
    windows = ranking.gains.isfinite().nonzero()
    places = sorted(range(len(windows)), key=lambda i: sorted(windows[i].tolist()))
    return ranking.gains[windows[places].unbind(1)]


def test_untouched_stripes_of_a_window_stay_where_they_are():
    assert in_place([(0, 1, 2, 8), (3, 9, 10, 11), (4, 5, 6, 7)], 4) == [(0, 1, 2, 8), (4, 5, 6, 7), (3, 9, 10, 11)]
    triples = StripeTriples(arrangement(2, 4, n_stripes=3))
    some = triples.ranking.changed.sum(dim=1).bincount()
    assert some.tolist() == [1, 0, 3 * 34, 5775 - 1 - 3 * 34]


def test_windows_that_share_an_unchanged_stripe_go_together():
    triples = StripeTriples(arrangement(2, 4, n_stripes=5))
    ranking: Ranking = triples.ranking
    pair = int((ranking.changed.int() == torch.tensor([1, 1, 0])).all(dim=1).nonzero()[0])  # changes 0 and 1
    every = int(ranking.changed.all(dim=1).nonzero()[0])
    ranking.put((torch.tensor([0]), torch.tensor([1]), torch.tensor([2])), *gain_of(9.0, pair))
    ranking.put((torch.tensor([2]), torch.tensor([3]), torch.tensor([4])), *gain_of(8.0, every))
    ranking.put((torch.tensor([1]), torch.tensor([3]), torch.tensor([4])), *gain_of(7.0, every))
    assert ranking.compatible(0.0).tolist() == [[0, 1, 2], [2, 3, 4]]
    made = triples.arrangement
    windows = ranking.compatible(0.0)
    orders = ranking.orders[ranking.choice(windows)]
    before = made.columns.clone()
    expected = float(made.gains(windows, orders).sum()) + made.kept
    assert made.apply(windows, orders).tolist() == [0, 1, 2, 3, 4]
    assert made.kept == pytest.approx(expected)
    assert torch.equal(made.columns, before[made.permutation])
    assert made.apply(windows[:1], orders[:1]).tolist() == [0, 1]


def gain_of(gain: float, choice: int) -> tuple[Tensor, Tensor]:
    return torch.full((1, 1, 1), gain), torch.full((1, 1, 1), choice)


def test_a_gain_that_proves_wrong_is_corrected_and_not_taken():
    made = arrangement(2, 4, n_stripes=3)
    pairs = StripePairs(made)
    pairs.refresh(made.everyone, lambda: None)
    ranking, kept = pairs.ranking, made.kept
    windows = ranking.gains.isfinite().nonzero()
    losing, worst = torch.stack([made.gains(windows, order.expand(3, -1)) for order in ranking.orders]).min(dim=0)
    assert float(losing.max()) < 0
    ranking.choices[windows.unbind(1)] = worst.int()
    ranking.set_gains(windows, torch.full((3,), 9.0))
    assert len(improve(made, ranking, 0.0, made.everyone)) == 0
    assert made.kept == kept
    assert torch.allclose(ranking.gains[windows.unbind(1)].double(), losing)


def test_forbidden_are_all_windows_with_both_stripes():
    triples: StripeGroups = StripeTriples(arrangement(2, 4, n_stripes=5))
    triples.refresh(torch.arange(5), lambda: None)
    triples.ranking.forbid(torch.tensor([1, 3]))
    left = [sorted(window) for window in triples.ranking.gains.isfinite().nonzero().tolist()]
    assert sorted(left) == [list(w) for w in combinations(range(5), 3) if not {1, 3} <= set(w)]


def test_windows_with_too_many_permutations_are_refused():
    for m, width in ((2, 3), (4, 3), (8, 2)):
        check_window(m, width)
    with pytest.raises(SpecError, match=r"width = 3: .* 126,126 permutations .* Choose width 2, or .* greedy_swap"):
        check_window(5, 3)
    with pytest.raises(SpecError, match=r"width = 2: .* 300,540,195 permutations .*\. Choose the strategy greedy_swap"):
        check_window(16, 2)
    with pytest.raises(SpecError, match="must be 2 or 3"):
        check_window(4, 4)

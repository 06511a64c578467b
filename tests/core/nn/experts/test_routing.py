"""Who finds a place with an expert, against queues that are walked token by token."""

import pytest
import torch

from core.nn.experts.routing import Routing, capacities, queue, reroute, sort_by_expert
from tests.core.nn.experts import oracles


def probabilities(groups=3, tokens=24, experts=5, seed=0):
    logits = 3 * torch.randn(groups, tokens, experts, generator=torch.Generator().manual_seed(seed))
    return (logits + torch.arange(experts)).softmax(-1)  # the last experts are in demand


def chosen_of(routing, group):
    """As the oracles tell it."""
    rows = zip(routing.experts[group], routing.gates[group], routing.kept[group], strict=True)
    return [[(int(e), float(g)) for e, g, k in zip(*row, strict=True) if k] for row in rows]


def test_places_are_the_floor_of_the_papers_formula_and_at_least_four():
    valid = torch.ones(3, 100, dtype=torch.bool)
    valid[1, 50:] = False
    valid[2] = False
    assert capacities(valid, 8, 1.25).tolist() == [15, 7, 4]
    assert capacities(valid, 8, 2.0).tolist() == [25, 12, 4]


@pytest.mark.parametrize("places", [1, 4, 100])
@pytest.mark.parametrize("reroutes", [0, 1, 2, 9])
def test_first_choices_stand_in_line_and_may_try_the_next(places, reroutes):
    p = probabilities()
    valid = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) > 0.2
    gates, experts = p.max(-1, keepdim=True)
    limit = torch.full((3,), places)
    routing = Routing(experts, gates, queue(experts, valid, 5, limit), valid, p)
    routing = reroute(routing, limit, reroutes)
    for group in range(3):
        expected = oracles.switch(p[group], places, min(reroutes, 4), valid[group])
        assert [[e for e, _ in own] for own in chosen_of(routing, group)] == [[e for e, _ in own] for own in expected]
        assert sum(map(len, expected)) <= 5 * places


def test_second_choices_queue_behind_all_first_ones():
    p = probabilities(seed=2)
    valid = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) > 0.2
    largest, experts = p.topk(2, dim=-1)
    gates = largest / largest.sum(-1, keepdim=True)
    routing = Routing(experts, gates, queue(experts, valid, 5, torch.tensor([6, 6, 6])), valid, p)
    for group in range(3):
        expected = oracles.top2(p[group], 6, valid[group])
        found = chosen_of(routing, group)
        assert [[e for e, _ in own] for own in found] == [[e for e, _ in own] for own in expected]
    dropped = ~routing.kept & valid[..., None]
    assert dropped[..., 1].sum() > dropped[..., 0].sum() > 0  # or the order would not matter here


def test_places_are_used_once():
    p = probabilities(groups=1, tokens=200)
    experts = p.topk(2, dim=-1).indices
    valid = torch.ones(1, 200, dtype=torch.bool)
    kept = queue(experts, valid, 5, torch.tensor([30]))
    used = torch.bincount(experts[kept], minlength=5)
    wanted = torch.bincount(experts.flatten(), minlength=5)
    assert used.tolist() == wanted.clamp(max=30).tolist()


def test_kept_choices_are_sorted_by_expert_in_the_order_of_tokens():
    experts = torch.tensor([[[2], [0], [2], [1], [0]]])
    kept = torch.tensor([[[True], [True], [True], [False], [True]]])
    routing = Routing(experts, torch.ones(1, 5, 1), kept, torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 5, 4))
    order, segments = sort_by_expert(routing.experts, routing.kept, 4)
    assert order.tolist() == [1, 4, 0, 2] and segments.sizes == [2, 0, 2, 0]
    assert segments.slices == [(0, slice(0, 2)), (2, slice(2, 4))]
    assert segments.ends.tolist() == [2, 2, 4, 4]

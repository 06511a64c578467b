"""Which experts each token goes to, who finds a place there, and the order in which experts take their tokens.

Sorting does all of it: nothing of size tokens x experts x places is made, and nothing goes token by token. Tokens that
share the places of an expert are a group; its sizes are [groups, tokens, choices] throughout.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.nn.experts.segments import Segments

FEWEST_PLACES = 4


@dataclass(frozen=True)
class Routing:
    """What a router decided."""

    experts: Tensor  # int64 [groups, tokens, choices], the first choice first
    gates: Tensor  # [groups, tokens, choices]: the weight of that expert's output, in float32 or better
    kept: Tensor  # bool, the same shape: False for padding and for what found no place
    valid: Tensor  # bool [groups, tokens]: False for padding
    probabilities: Tensor  # [groups, tokens, experts], the router's, before any choice
    losses: dict[str, Tensor] = field(default_factory=dict)

    def detached(self) -> "Routing":
        """The same without gradients and losses."""
        return replace(self, gates=self.gates.detach(), probabilities=self.probabilities.detach(), losses={})


def capacities(valid: Tensor, n_experts: int, factor: float) -> Tensor:
    """Places of an expert in each group: int(tokens / experts * factor), at least 4; `valid` [groups, tokens]."""
    return (valid.sum(1).double() * factor / n_experts).long().clamp(min=FEWEST_PLACES)


def queue(experts: Tensor, valid: Tensor, n_experts: int, places: Tensor, taken: Tensor | None = None) -> Tensor:
    """Which choices [groups, tokens, choices] find a place: earlier tokens first, all first choices before any second.

    `valid` [groups, tokens] or like `experts`: False stands in no queue. `places` [groups]; `taken` [groups, experts]
    of them are.
    """
    groups, tokens, choices = experts.shape
    valid = valid[..., None].expand_as(experts) if valid.dim() == 2 else valid
    group = torch.arange(groups, device=experts.device)[:, None, None]
    lines = torch.where(valid, group * n_experts + experts, groups * n_experts)  # the last line is nobody's
    lines = lines.transpose(1, 2).flatten()  # choice by choice, each in the order of tokens
    order = lines.argsort(stable=True)
    length = torch.bincount(lines, minlength=groups * n_experts + 1)
    starts = length.cumsum(0) - length
    if taken is not None:
        starts[:-1] -= taken.flatten()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - starts[lines[order]]
    return valid & (place.view(groups, choices, tokens).transpose(1, 2) < places[:, None, None])


def reroute(routing: Routing, places: Tensor, rounds: int) -> Routing:
    """No token left behind: first choices without a place try the next likeliest expert, `rounds` times at most.

    Paper: https://arxiv.org/abs/2101.03961, appendix B.
    """
    experts, gates, kept = routing.experts, routing.gates, routing.kept
    n_experts = routing.probabilities.shape[-1]
    ranked = routing.probabilities.argsort(dim=-1, descending=True, stable=True)
    for choice in range(1, min(rounds + 1, n_experts)):
        waiting = routing.valid[..., None] & ~kept
        if not waiting.any():
            break
        tried = torch.where(waiting, ranked[..., choice : choice + 1], experts)
        found = queue(tried, waiting, n_experts, places, taken=_taken(experts, kept, n_experts))
        experts = torch.where(found, tried, experts)
        gates = torch.where(found, routing.probabilities.gather(-1, experts), gates)
        kept = kept | found
    return replace(routing, experts=experts, gates=gates, kept=kept)


def _taken(experts: Tensor, kept: Tensor, n_experts: int) -> Tensor:
    counts = torch.zeros(experts.shape[0], n_experts, dtype=torch.int64, device=experts.device)
    return counts.scatter_add_(1, experts.flatten(1), kept.flatten(1).long())


def sort_by_expert(experts: Tensor, kept: Tensor, n_experts: int) -> tuple[Tensor, Segments]:
    """The kept of the flattened choices, in the order of their experts, and how many each expert has."""
    chosen = torch.where(kept, experts, n_experts).flatten()
    counts = torch.bincount(chosen, minlength=n_experts + 1)[:n_experts]
    segments = Segments(counts)
    order = chosen.argsort(stable=True)[: sum(segments.sizes)]
    return order, segments

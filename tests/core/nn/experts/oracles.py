"""Mixtures of experts computed token by token, as slowly and plainly as their papers write them."""

import torch
from torch import Tensor

from core.nn.experts.feed_forward import ACTIVATIONS, ExpertFeedForward


def expert(experts: ExpertFeedForward, e: int, x: Tensor) -> Tensor:
    """What expert e makes of one token [dim]."""
    parts = {name: layer.weight.chunk(experts.experts)[e] for name, layer in experts.named_children()}
    biases = {
        name: 0 if layer.bias is None else layer.bias.chunk(experts.experts)[e]
        for name, layer in experts.named_children()
    }

    def linear(name: str, x: Tensor) -> Tensor:
        return parts[name] @ x + biases[name]

    activation = ACTIVATIONS[experts.form.activation]
    hidden = activation(linear("gate", x)) * linear("up", x) if experts.form.gated else activation(linear("up", x))
    return linear("down", hidden)


def switch(
    probabilities: Tensor, places: int | None, reroutes: int = 0, valid: Tensor | None = None
) -> list[list[tuple[int, Tensor]]]:
    """For each token of one group: the expert that takes it and the weight, or nothing; probabilities [T, experts]."""
    taken = [0] * probabilities.shape[1]
    chosen: list[list[tuple[int, Tensor]]] = [[] for _ in probabilities]
    waiting = [t for t in range(len(probabilities)) if valid is None or valid[t]]
    for choice in range(1 + reroutes):
        still = []
        for t in waiting:
            e = int(probabilities[t].argsort(descending=True)[choice])
            if places is None or taken[e] < places:
                taken[e] += 1
                chosen[t].append((e, probabilities[t, e]))
            else:
                still.append(t)
        waiting = still
    return chosen


def top2(probabilities: Tensor, places: int | None, valid: Tensor | None = None) -> list[list[tuple[int, Tensor]]]:
    """The same for two experts a token, first choices before second ones."""
    taken = [0] * probabilities.shape[1]
    chosen: list[list[tuple[int, Tensor]]] = [[] for _ in probabilities]
    for choice in range(2):
        for t in range(len(probabilities)):
            if valid is not None and not valid[t]:
                continue
            ranked = probabilities[t].argsort(descending=True)[:2].tolist()
            total = probabilities[t, ranked].sum()
            e = ranked[choice]
            if places is None or taken[e] < places:
                taken[e] += 1
                chosen[t].append((e, probabilities[t, e] / total))
    return chosen


def mixed(experts: ExpertFeedForward, x: Tensor, chosen: list[list[tuple[int, Tensor]]]) -> Tensor:
    """x [T, dim] through the chosen experts, weighted."""
    outputs = [
        sum((weight * expert(experts, e, token) for e, weight in own), torch.zeros_like(token))
        for token, own in zip(x, chosen, strict=True)
    ]
    return torch.stack(outputs)

"""The rank of each layer by what factoring it alone does to the predictions, within a budget of weights.

Paper: https://arxiv.org/abs/2411.19146 (Puzzletron: one variant for each layer, by an integer program).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from core.algorithms.trial_weights import trial_weights
from core.allocation.choice import choose, total
from core.context import Context
from core.measure.calibration_kl import CalibrationComparison
from core.nn.experts.linear import ExpertLinear
from core.subject import Subject

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of a layer's weights that its factors may have


class Spectrum:
    """The singular vectors and values of a layer's matrices: one of a linear layer, one for each expert."""

    def __init__(self, subject: Subject, name: str):
        layer = subject.model.get_submodule(name)
        n_matrices = layer.experts if isinstance(layer, ExpertLinear) else 1
        weight = layer.get_parameter("weight").detach()
        self.u, self.s, self.vh = torch.linalg.svd(weight.float().unflatten(0, (n_matrices, -1)), full_matrices=False)
        self.weights = weight.numel()
        self.in_features, self.out_features = self.vh.shape[-1], self.u.shape[-2]
        self.n_matrices = n_matrices

    def cost(self, rank: int) -> int:
        """Weights of the factors."""
        return self.n_matrices * rank * (self.in_features + self.out_features)

    def nearest(self, rank: int) -> Tensor:
        """The nearest weight of this rank, like the layer's."""
        return ((self.u[..., :rank] * self.s[..., None, :rank]) @ self.vh[..., :rank, :]).flatten(0, 1)


@torch.no_grad()
def measured_ranks(
    subject: Subject, context: Context, uniform: Mapping[str, int | None], kept: float, examples: int
) -> dict[str, int]:
    """Ranks of the layers to factor, with the least sum of KL divergences of at most `kept` of all layers' weights.

    `uniform` has the rank of each layer with an equal share (None: it stays dense), one of the choices. What both do
    to the predictions together goes to the log.
    """
    comparison = CalibrationComparison(subject.model, list(context.calibration(examples)))
    names, ranks, losses, costs = list(uniform), [], [], []
    for index, name in enumerate(names):
        spectrum = Spectrum(subject, name)
        tried = _ranks(spectrum, uniform[name])
        ranks.append(tried)
        row = []
        for at, rank in enumerate(tried[1:]):
            context.record.progress((index + at / len(tried)) / len(names), f"{name}: rank {rank}")
            with trial_weights(subject.model, {name: spectrum.nearest(rank or 1)}):
                row.append(comparison.compare().kl)
        losses.append([0.0, *row])
        costs.append([spectrum.weights, *(spectrum.cost(rank or 1) for rank in tried[1:])])
    width = max(map(len, ranks))
    loss = np.array([[*row, *[np.nan] * (width - len(row))] for row in losses], dtype=float)
    cost = np.array([[*row, *[np.nan] * (width - len(row))] for row in costs], dtype=float)
    even = np.array([tried.index(uniform[name]) for name, tried in zip(names, ranks, strict=True)])
    choice = choose(loss, cost, kept * cost[:, 0].sum(), [even])
    chosen = {name: tried[at] for name, tried, at in zip(names, ranks, choice, strict=True)}
    _tell(subject, context, comparison, {"measured ranks": chosen, "equal shares": dict(uniform)}, total(loss, choice))
    return {name: rank for name, rank in chosen.items() if rank is not None}


def _ranks(spectrum: Spectrum, uniform: int | None) -> list[int | None]:
    """Ranks to try, the first of them None: unchanged. All save weights."""
    each = spectrum.in_features + spectrum.out_features
    matrix = spectrum.in_features * spectrum.out_features
    tried = {max(1, int(share * matrix / each)) for share in SHARES} | ({uniform} if uniform else set())
    return [None, *sorted(rank for rank in tried if rank * each < matrix)]


def _tell(
    subject: Subject,
    context: Context,
    comparison: CalibrationComparison,
    choices: Mapping[str, Mapping[str, int | None]],
    predicted: float,
) -> None:
    kls = {}
    for title, chosen in choices.items():
        weights = {name: Spectrum(subject, name).nearest(rank) for name, rank in chosen.items() if rank is not None}
        with trial_weights(subject.model, weights):
            kls[title] = comparison.compare().kl
    (measured, kl), (even, other) = kls.items()
    wins = kl < other
    told = f"{measured}: KL {kl:.3g} nats on calibration data ({predicted:.3g} predicted)"
    verdict = f"{'better' if wins else 'no better'} than {even}: {other:.3g}"
    context.record.event("info" if wins else "warning", f"{told}, {verdict}")

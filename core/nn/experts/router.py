"""What routers by softmax share: float32, the groups whose tokens compete for places, and the balance of each."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.experts.balance import load_balancing_loss
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.routing import capacities
from core.nn.precision import wide, without_autocast

BALANCE = "load balancing loss"
Group = Literal["batch", "sequence"]


def router_logits(x: Tensor, weight: Tensor) -> Tensor:
    """[..., dim] times weight [experts, dim] in float32, under autocast too: in bfloat16 routers diverge."""
    with without_autocast(x.device):
        return F.linear(wide(x), wide(weight))


class SoftmaxRouted(MixtureOfExperts):
    """Experts chosen by the largest probabilities, with or without a limit on the tokens of each.

    Training counts places and balance over the whole batch, or over each sequence (`group`). Evaluation counts places
    over each sequence, so that an example's answer does not depend on the rest of its batch. A capacity factor of None
    sets no limit. In evaluation a causal model has none either: places depend on the length of the text and second
    choices on later tokens' first ones, so a limit would score another model than the one that generates.
    """

    settings: ClassVar[tuple[str, ...]] = ("capacity_factor", "eval_capacity_factor", "balance_weight", "group")

    def __init__(
        self,
        n_experts: int,
        *,
        capacity_factor: float | None,
        eval_capacity_factor: float | None,
        balance_weight: float,
        group: Group = "batch",
        **form: Any,
    ):
        super().__init__(n_experts, **form)
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.balance_weight, self.group = balance_weight, group
        self.router = nn.Parameter(torch.zeros(n_experts, self.form.dim))

    def grouped(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> [groups, tokens, ...]."""
        return x.flatten(0, 1)[None] if self.training and self.group == "batch" else x

    def places(self, valid: Tensor, *, causal: bool = False) -> Tensor | None:
        """Places of an expert in each group; None: as many as come."""
        if causal and not self.training:
            return None
        factor = self.capacity_factor if self.training else self.eval_capacity_factor
        return None if factor is None else capacities(valid, self.n_experts, factor)

    def balance(self, first: Tensor, probabilities: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The weighted loss of first choices [groups, tokens], before any was dropped: the mean over groups."""
        if not self.training:
            return {}
        tokens = valid.sum(1, keepdim=True)
        counts = probabilities.new_zeros(len(first), self.n_experts)
        counts.scatter_add_(1, first, valid.to(counts.dtype))
        means = (probabilities * valid[..., None]).sum(1) / tokens.clamp(min=1)
        loss = load_balancing_loss(counts / tokens.clamp(min=1), means).sum() / (tokens > 0).sum().clamp(min=1)
        return {BALANCE: self.balance_weight * loss}

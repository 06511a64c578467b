"""Noisy top-k gating: the router's logits are blurred by learned noise, and the k largest share a softmax.

Paper: https://arxiv.org/abs/1701.06538 (sections 2.1 and 4, appendix A). Dropless, as there.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from core.nn.experts.balance import probability_in_top_k, squared_variation
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.router import router_logits
from core.nn.experts.routing import Routing

SMALLEST_NOISE = 1e-2  # of the authors' code; the paper has none
IMPORTANCE, LOAD = "importance loss", "load loss"


class NoisyTopKExperts(MixtureOfExperts):
    """k of `n_experts`; noise in training only. Both routers are zero at first: every choice is then as likely."""

    settings: ClassVar[tuple[str, ...]] = ("choices", "importance_weight", "load_weight")

    def __init__(
        self, n_experts: int, *, choices: int, importance_weight: float = 0.1, load_weight: float = 0.1, **form: Any
    ):
        super().__init__(n_experts, **form)
        self.choices, self.importance_weight, self.load_weight = choices, importance_weight, load_weight
        self.router = nn.Parameter(torch.zeros(n_experts, self.form.dim))
        self.noise_router = nn.Parameter(torch.zeros(n_experts, self.form.dim))

    def route(self, x: Tensor, valid: Tensor, *, causal: bool = False) -> Routing:
        clean = router_logits(x, self.router)
        if not self.training:
            return self._choose(clean, clean, valid)
        sigma = F.softplus(router_logits(x, self.noise_router)) + SMALLEST_NOISE
        noisy = clean + self._noise(clean) * sigma
        routing = self._choose(noisy, clean, valid)
        routing.losses.update(self._losses_of(routing, clean, noisy, sigma))
        return routing

    def _noise(self, clean: Tensor) -> Tensor:
        return torch.randn_like(clean)

    def _choose(self, logits: Tensor, clean: Tensor, valid: Tensor) -> Routing:
        largest, experts = logits.topk(self.choices, dim=-1)
        kept = valid[..., None].expand_as(experts)
        return Routing(experts, largest.softmax(-1), kept, valid, clean.softmax(-1), {})

    def _losses_of(self, routing: Routing, clean: Tensor, noisy: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        gates = torch.zeros_like(clean).scatter(-1, routing.experts, routing.gates)
        load = probability_in_top_k(clean, noisy, sigma, self.choices)
        real = routing.valid[..., None]
        importance, load = (self._total((part * real).sum((0, 1))) for part in (gates, load))
        return {
            IMPORTANCE: self.importance_weight * squared_variation(importance),
            LOAD: self.load_weight * squared_variation(load),
        }

    def _total(self, x: Tensor) -> Tensor:
        """Over the tokens of all processes that share the experts."""
        return x if self.processes is None else all_reduce(x, group=self.processes)

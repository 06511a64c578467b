"""Switch: each token goes to the one expert that its router thinks likeliest, weighted by that probability.

Paper: https://arxiv.org/abs/2101.03961.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from core.nn.experts.router import SoftmaxRouted, router_logits
from core.nn.experts.routing import Routing, queue, reroute


class SwitchExperts(SoftmaxRouted):
    """Top-1 of `n_experts`; in training the router's input is multiplied by 1 - jitter to 1 + jitter.

    `reroutes`: how many of its next choices a token without a place tries (no token left behind).
    """

    settings: ClassVar[tuple[str, ...]] = (*SoftmaxRouted.settings, "jitter", "reroutes")
    choices = 1

    def __init__(self, n_experts: int, *, jitter: float = 0.0, reroutes: int = 0, **settings: Any):
        super().__init__(n_experts, **settings)
        self.jitter, self.reroutes = jitter, reroutes

    def route(self, x: Tensor, valid: Tensor, *, causal: bool = False) -> Routing:
        x, valid = self.grouped(x), self.grouped(valid)
        probabilities = router_logits(self._jittered(x), self.router).softmax(-1)
        gates, experts = probabilities.max(dim=-1, keepdim=True)
        losses = self.balance(experts[..., 0], probabilities, valid)
        places = self.places(valid, causal=causal)
        if places is None:
            return Routing(experts, gates, valid[..., None], valid, probabilities, losses)
        kept = queue(experts, valid, self.n_experts, places)
        routing = Routing(experts, gates, kept, valid, probabilities, losses)
        return reroute(routing, places, self.reroutes) if self.reroutes else routing

    def _jittered(self, x: Tensor) -> Tensor:
        if not (self.training and self.jitter):
            return x
        noise = torch.empty_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        return x * noise.uniform_(1 - self.jitter, 1 + self.jitter)

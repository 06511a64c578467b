"""Top-2 experts, as GLaM and GShard have them: weights renormalised, second choices behind all first ones.

Papers: https://arxiv.org/abs/2112.06905 (GLaM), https://arxiv.org/abs/2006.16668 (GShard).
"""

from torch import Tensor

from core.nn.experts.router import SoftmaxRouted, router_logits
from core.nn.experts.routing import Routing, queue


class Top2Experts(SoftmaxRouted):
    """Each token goes to its two likeliest experts; what finds no place is not made up for by the other."""

    choices = 2

    def route(self, x: Tensor, valid: Tensor, *, causal: bool = False) -> Routing:
        x, valid = self.grouped(x), self.grouped(valid)
        probabilities = router_logits(x, self.router).softmax(-1)
        largest, experts = probabilities.topk(2, dim=-1)
        gates = largest / largest.sum(-1, keepdim=True)
        losses = self.balance(experts[..., 0], probabilities, valid)  # of first choices alone
        places = self.places(valid, causal=causal)
        everyone = valid[..., None].expand_as(experts)
        kept = everyone if places is None else queue(experts, valid, self.n_experts, places)
        return Routing(experts, gates, kept, valid, probabilities, losses)

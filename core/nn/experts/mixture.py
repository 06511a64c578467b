"""What mixtures of experts share: tokens go to the experts that a router chose, and come back weighted.

Papers: https://arxiv.org/abs/1701.06538, https://arxiv.org/abs/2211.15841 (MegaBlocks: sorted, without padding).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from core.nn.experts.balance import entropy
from core.nn.experts.feed_forward import ExpertFeedForward, Form
from core.nn.experts.low_rank import saved_by_factoring
from core.nn.experts.routing import Routing, sort_by_expert
from core.nn.ffn.masked import Masked
from core.nn.replacement import Replacement

NO_ONNX = "routing depends on the data, and a traced graph would keep the example's routing"
LOAD, DROPPED, ENTROPY = "busiest expert (times the mean)", "dropped choices (%)", "router entropy (% of uniform)"


def mixed_by_experts(
    experts: Callable[..., Tensor], rows: Tensor, chosen: Tensor, gates: Tensor, kept: Tensor, n_experts: int
) -> Tensor:
    """The sum of what its experts give each of rows [n, dim], weighted by gates: [n, dim].

    `chosen`, `gates` and `kept` (False: dropped) are [..., choices] of n tokens; `experts` takes sorted rows and their
    `Segments`.
    """
    order, segments = sort_by_expert(chosen, kept, n_experts)
    token = order // chosen.shape[-1]
    out = experts(rows.index_select(0, token), segments)
    weighted = out * gates.flatten().index_select(0, order)[:, None].to(out.dtype)
    return out.new_zeros(rows.shape).index_add(0, token, weighted)


class MixtureOfExperts(Masked, Replacement):
    """A router and its experts; a subclass routes. Its own settings are named in `settings`, as its attributes are."""

    settings: ClassVar[tuple[str, ...]] = ()
    choices: int  # experts of a token
    no_onnx = NO_ONNX

    def __init__(self, n_experts: int, **form: Any):
        super().__init__()
        self.n_experts, self.form = n_experts, Form(**form)
        self.experts: nn.Module = ExpertFeedForward(n_experts, self.form)
        self.processes: ProcessGroup | None = None  # that share the experts: see `parallel`
        self._losses: dict[str, Tensor] = {}  # with their gradients, until `aux_losses` takes them
        self._seen: Routing | None = None  # of the last training batch, without gradients

    def route(self, x: Tensor, valid: Tensor, *, causal: bool = False) -> Routing:
        """The experts of each token of x [B, T, dim]; `valid` [B, T] is False at padding, `causal` as in `Masked`."""
        raise NotImplementedError(type(self).__name__)

    def router_macs(self) -> int:
        """Multiply-accumulates of routing one token."""
        return self.form.dim * self.n_experts

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; padding, and tokens that no expert had a place for, give zero."""
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
        routing = self.route(x, valid, causal=causal)
        if self.training:
            self._losses = routing.losses
            self._seen = routing.detached()
        choices = (routing.experts, routing.gates, routing.kept)
        return mixed_by_experts(self.experts, x.flatten(0, 1), *choices, self.n_experts).view_as(x)

    def aux_losses(self) -> dict[str, Tensor]:
        """The weighted losses of the last training batch."""
        losses, self._losses = self._losses, {}  # what has a gradient cannot be copied with the model
        return losses

    def observed(self) -> dict[str, float]:
        """How evenly experts were chosen in the last training batch, what was dropped, and how sure the router was."""
        if self._seen is None:
            return {}
        chosen = self._seen.experts[self._seen.valid]  # [tokens, choices]
        load = torch.bincount(chosen.flatten(), minlength=self.n_experts)
        dropped = 1 - self._seen.kept.sum() / max(1, chosen.numel())
        return {
            LOAD: float(load.max() / load.float().mean().clamp(min=1e-9)),
            DROPPED: 100 * float(dropped),
            ENTROPY: 100 * float(entropy(self._seen.probabilities[self._seen.valid]).mean()),
        }

    def inactive_parameters(self) -> int:
        """What the experts that a token does not meet amount to."""
        return (self.n_experts - self.choices) * (self.form.parameters() - saved_by_factoring(self.experts))

    def macs(self, shape: torch.Size) -> int:
        tokens = shape.numel() // shape[-1]
        return tokens * (self.router_macs() + self.choices * (self.form.weights() - saved_by_factoring(self.experts)))

    def arguments(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.settings}
        return {"n_experts": self.n_experts, **self.form.arguments(), **own}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_losses": {}, "_seen": None}

"""Noisy top-k experts: a learned noise blurs which k experts a token goes to, and two losses keep them all busy.

Paper: https://arxiv.org/abs/1701.06538. Both routers begin at zero; no expert has a limit. Experts have the form of the
feed-forward network whose place they take (the paper's have one ReLU layer between two LSTMs). The paper's
two-level mixture for thousands of experts is not built.
"""

from typing import Any

from pydantic import Field

from core.nn.experts.noisy_top_k import NoisyTopKExperts
from core.techniques.mixture_of_experts.experts import ExpertsStep


class Moe(ExpertsStep):
    """Replace feed-forward networks with experts; each token uses k, chosen with learned noise."""

    paper = "https://arxiv.org/abs/1701.06538"
    module = NoisyTopKExperts

    k: int = Field(2, ge=1, le=64, description="experts per token")
    importance_weight: float = Field(
        0.1, ge=0, le=100, description="weight of the importance loss, which balances the experts' summed gates"
    )
    load_weight: float = Field(
        0.1, ge=0, le=100, description="weight of the load loss, which balances the experts' numbers of tokens"
    )

    def choices(self) -> int:
        """k."""
        return self.k

    def settings(self) -> dict[str, Any]:
        """The module's keyword arguments."""
        return {"choices": self.k, "importance_weight": self.importance_weight, "load_weight": self.load_weight}

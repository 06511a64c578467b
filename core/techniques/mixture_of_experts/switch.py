"""Switch: each token goes to one expert, weighted by the router's probability of it, as long as there is a place.

Paper: https://arxiv.org/abs/2101.03961. Experts have the form of the feed-forward network whose place they take. Places
are counted over a training batch, and in evaluation over each sequence, without the padding. Causal models are
evaluated without a limit, since one would let later tokens change earlier ones. A token's output is scaled by a
probability, so a trained model does not begin as what it was: `glam` and `moe` do.
"""

from typing import Any, Literal

import torch
from pydantic import Field

from core.context import Context
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.swapping import draw_truncated_, experts_of
from core.nn.experts.switch import SwitchExperts
from core.subject import Subject
from core.techniques.mixture_of_experts.experts import ExpertsStep, Ffn


class Switch(ExpertsStep):
    """Replace feed-forward networks with experts; each token uses one, so weights grow but compute does not."""

    paper = "https://arxiv.org/abs/2101.03961"
    module = SwitchExperts

    capacity_factor: float | None = Field(
        1.25,
        gt=0,
        le=1024,
        description="capacity of an expert in training, as a multiple of tokens / experts; no limit if empty",
        json_schema_extra={"when_empty": "no limit"},
    )
    eval_capacity_factor: float | None = Field(
        2.0,
        gt=0,
        le=1024,
        description="capacity factor in evaluation, per sequence; no limit if empty or in a causal model",
        json_schema_extra={"when_empty": "no limit"},
    )
    group: Literal["batch", "sequence"] = Field(
        "batch", description="tokens per group in training; each group has its own capacity"
    )
    balance_weight: float = Field(0.01, ge=0, le=100, description="weight of the load balancing loss (alpha)")
    jitter: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="router jitter: its input is multiplied by a factor between 1 - jitter and 1 + jitter",
    )
    reroutes: int = Field(
        0, ge=0, le=4096, description="further choices that an overflowing token tries (no token left behind)"
    )
    init_scale: float = Field(0.1, gt=0, le=10, description="variance of initial weights, times their number of inputs")

    def settings(self) -> dict[str, Any]:
        """The module's keyword arguments."""
        names = ("capacity_factor", "eval_capacity_factor", "group", "balance_weight", "jitter", "reroutes")
        return {name: getattr(self, name) for name in names}

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap, and say what becomes of a trained model."""
        if subject.trained:
            message = (
                f"each output is now scaled by a router's probability, initially about 1/{self.experts}: train again"
            )
            context.record.event("warning", message)
        super().apply(subject, context)

    def draw_(self, mixture: MixtureOfExperts, ffn: Ffn, trained: bool, generator: torch.Generator) -> None:
        """Everything fresh from a narrow truncated normal distribution, which the paper found to train stably."""
        assert isinstance(mixture, SwitchExperts)
        draw_truncated_(mixture.router, self.init_scale, generator)
        if trained:
            super().draw_(mixture, ffn, trained, generator)
            return
        for layer in experts_of(mixture).values():
            draw_truncated_(layer.weight, self.init_scale, generator)

"""GLaM: each token goes to two experts, whose weights add up to one; second choices queue behind all first ones.

Paper: https://arxiv.org/abs/2112.06905, routing as in GShard (https://arxiv.org/abs/2006.16668). In a model that is not
trained, experts and the networks between them are gated (GEGLU, two thirds as wide); trained and gated ones keep their
form. The router is drawn as Switch's. Causal models are evaluated without a limit, since one would let later tokens
change earlier ones. GShard's random dropping of second choices is not built.
"""

from typing import Any, Literal

import torch
from pydantic import Field

from core.context import Context
from core.nn.experts.feed_forward import Form
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.swapping import draw_truncated_, form_of, fresh_geglu
from core.nn.experts.top2 import Top2Experts
from core.nn.ffn.mlp import Mlp
from core.subject import Subject
from core.techniques.mixture_of_experts.experts import ExpertsStep, Ffn

ROUTER_SCALE = 0.1


class Glam(ExpertsStep):
    """Replace every other feed-forward network with gated experts; each token uses two."""

    paper = "https://arxiv.org/abs/2112.06905"
    module = Top2Experts

    capacity_factor: float | None = Field(
        2.0,
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
    balance_weight: float = Field(
        0.01, ge=0, le=100, description="weight of the load balancing loss over first choices"
    )

    def settings(self) -> dict[str, Any]:
        """The module's keyword arguments."""
        names = ("capacity_factor", "eval_capacity_factor", "group", "balance_weight")
        return {name: getattr(self, name) for name in names}

    def form(self, ffn: Ffn, trained: bool) -> Form:
        """GEGLU of as many weights as a network of two layers, where weights are drawn anew."""
        known = form_of(ffn)
        if trained or known.gated:
            return super().form(ffn, trained)
        return Form(known.dim, self._hidden(gated_width(known.hidden)), "gelu", gated=True, bias=False)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap the chosen networks for experts, and fresh ones between them for gated ones."""
        super().apply(subject, context)
        if subject.trained:
            return
        between = {name: ffn for name, ffn in subject.model.named_modules() if isinstance(ffn, Mlp)}
        for name, ffn in between.items():
            subject.replace(name, fresh_geglu(ffn, gated_width(form_of(ffn).hidden), context.generator(name)))

    def draw_(self, mixture: MixtureOfExperts, ffn: Ffn, trained: bool, generator: torch.Generator) -> None:
        """Experts as the networks were drawn, the router narrowly."""
        assert isinstance(mixture, Top2Experts)
        super().draw_(mixture, ffn, trained, generator)
        draw_truncated_(mixture.router, ROUTER_SCALE, generator)


def gated_width(hidden: int) -> int:
    """Two thirds, in eights: three matrices then have as many weights as two had."""
    return max(8, round(hidden * 2 / 3 / 8) * 8)
